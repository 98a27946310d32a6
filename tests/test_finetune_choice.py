"""Which weights of a fine-tuning are kept as the best, and images that are damaged among those it looks at."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.config import Bnneck, ClusterContrast, Clustering, Writing
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import embed_all
from cion_jax.evaluate.jaccard import dbscan, jaccard_graph
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables, backbone
from cion_jax.run.clusters import cluster
from cion_jax.run.evaluation import scores_of_some
from cion_jax.run.finetuning import FinetuningMethod
from cion_jax.run.learned import divide
from finetuned import COMMANDS, TOY, cion, stand_in
from sources import Blocks

pytestmark = pytest.mark.xdist_group("finetuning")  # one after the other: they share compiled steps

SCORES = {"mAP": [0.1, 0.9, 0.2], "validation_mAP": [0.2, 0.1, 0.9]}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@contextmanager
def silent(what: str, total: int) -> Iterator[Any]:
    yield lambda done: None


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("test") / "set"
    write_dataset(folder, {"query": Blocks(30, seed=1), "gallery": Blocks(60, seed=1)}, Writing(workers=1))
    return folder


def test_the_test_set_chooses_only_where_it_is_told_to(
    dataset: Path, test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    after: dict[int, bytes] = {}

    def scores(method: FinetuningMethod, state: Any, epochs: int, bar: Any) -> dict[str, float]:
        if epochs > 1:
            after[epochs - 1] = next(tmp_path.glob("*/finetuned.safetensors")).read_bytes()
        return {name: values[epochs - 1] for name, values in SCORES.items()}

    monkeypatch.setattr(FinetuningMethod, "scores", scores)
    command = [COMMANDS["bnneck"], "--evaluate", test_set, TOY, dataset, tmp_path / "out"]
    assert cion(*command, "--select", "test") == 0
    assert (tmp_path / "out" / "best.safetensors").read_bytes() == after[2]
    assert f"best.safetensors is the epoch that {test_set} likes best" in capsys.readouterr().out
    assert cion(*command) == 1 and "select was test, not validation" in capsys.readouterr().err
    settings = tmp_path / "out" / "settings.json"
    begun = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: value for name, value in begun.items() if name != "resize"}))
    assert cion(*command, "--select", "test") == 0  # begun when there was no such setting
    other = write_dataset(tmp_path / "other", {"query": Blocks(30), "gallery": Blocks(60)}, Writing(workers=1))
    assert other and cion(*command[:2], tmp_path / "other", *command[3:], "--select", "test") == 1
    assert "evaluate was " in capsys.readouterr().err

    assert cion(*command[:-1], tmp_path / "plain") == 0
    last, best = ((tmp_path / "plain" / f"{name}.safetensors").read_bytes() for name in ("finetuned", "best"))
    assert last == best and "likes best" not in capsys.readouterr().out


def test_a_choice_needs_a_test_set(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bnneck", "dbscan"):
        assert cion(COMMANDS[name], "--select", "test", TOY, dataset, tmp_path / "out") == 1
        assert "select is test, and there is no test set; give it with --evaluate" in capsys.readouterr().err


@pytest.fixture
def damaged(own_dataset: Path) -> Path:
    """Data of which image 7, of identity 0, is damaged."""
    records = Records(own_dataset)
    row = records.index[7]
    with records.shard_path(row["shard"]).open("rb+") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(b"damage")
    return own_dataset


@pytest.fixture(scope="module")
def network() -> tuple[Network, Variables]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        body = backbone(TOY, image_size=(32, 16))
    return body, body.init(jax.random.key(0))


def test_a_damaged_image_is_in_no_cluster_and_near_to_nobody(
    network: tuple[Network, Variables], dataset: Path, damaged: Path, tmp_path: Path
) -> None:
    asked = Clustering(k1=8, k2=2, min_samples=2, eps=0.7)
    settings = ClusterContrast(batch=16, instances=4, clustering=asked, skip_damaged=True)
    labels, centers = cluster(settings, *network, Records(damaged), tmp_path, 0, silent)
    others = np.arange(200) != 7
    features = embed_all(*network, Records(dataset), image_size=(32, 16))[others]
    expected = dbscan(jaccard_graph(features, k1=8, k2=2), 0.7, 2)
    assert labels[7] == -1 and len(centers) == expected.max() + 1
    np.testing.assert_array_equal(labels[others], expected)
    with pytest.raises(UserError, match=r"image 7 of split train"):
        cluster(replace(settings, skip_damaged=False), *network, Records(damaged), tmp_path, 0, silent)


def test_a_damaged_image_among_those_set_aside_is_not_scored(
    network: tuple[Network, Variables], dataset: Path, damaged: Path
) -> None:
    settings = Bnneck(batch=4, instances=2, validation=0.9, precision="float32", skip_damaged=True)
    aside, whole = (divide(settings, Records(folder)).aside for folder in (damaged, dataset))
    assert aside is not None and whole is not None and 0 in aside.labels["identity"]
    place = int(np.flatnonzero(aside.labels["frame"] == 7)[0])
    scores = scores_of_some(settings, *network, *aside, silent)
    kept = np.delete(np.arange(len(whole.labels)), place)

    class Others:
        def __len__(self) -> int:
            return len(kept)

        def where(self, number: Any) -> str:
            return ""

        def pixels_into(self, out: np.ndarray, number: Any, kernel: str = "bilinear") -> None:
            whole.images.pixels_into(out, kept[number])

    assert scores == scores_of_some(settings, *network, Others(), whole.labels[kept], silent)
    with pytest.raises(UserError, match=r"image 7 of split train"):
        scores_of_some(replace(settings, skip_damaged=False), *network, *aside, silent)
