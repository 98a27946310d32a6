"""The page about a fine-tuning or an adaptation: which it is, its losses, clusters and weights."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.commands.report import report
from cion_jax.config import Bnneck, ClusterContrast, Finetuning, Mgn, Pretraining, Training, Writing
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.finetune.bnneck import BNNeck
from cion_jax.finetune.encoder import encoder
from cion_jax.models.zoo import ZOO, Backbone, backbone
from cion_jax.report.curves import read_curves
from cion_jax.report.finetuned import ADAPTATION, BNNECK, MGN, PRETRAINING, Kind, kind_of
from cion_jax.report.maps import activity_maps, inside
from cion_jax.weights.file import Weights, save
from finetuned import FAMILY as RESNET
from finetuned import TOY
from finished_run import FAMILY, SIZE, WORLD
from pages import Page
from tfrecords_tools.world import build, truth

pytestmark = pytest.mark.xdist_group("report")

SCALE = (0.5, 0.5, 0.5)
#: Rows of a journal: three epochs of ten steps.
STEPS = 30


@pytest.fixture(scope="module", autouse=True)
def zoo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "small", FAMILY)
        patch.setitem(ZOO, TOY, RESNET)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn world, with a train split that says who is who."""
    folder = tmp_path_factory.mktemp("world") / "world"
    splits = build(WORLD)
    splits["train"].labels["identity"] = truth(splits["train"])
    write_dataset(folder, splits, Writing(workers=1))
    return folder


def body(name: str) -> Backbone:
    """With pixels scaled as fine-tuning scales them."""
    return replace(backbone(name, image_size=SIZE), mean=SCALE, std=SCALE)


def journal(losses: dict[str, float], scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Losses that fall a little in each step, and scores after each epoch."""
    rows = []
    for step in range(STEPS):
        row = {"step": step, "time": 0.0, "epoch": (step + 1) / 10, "images_per_second": 90.0 + step}
        row |= {name: value - 0.01 * step for name, value in losses.items()}
        row |= {"learning_rate": 1e-4 * step, "gradient_norm": 1.0}
        rows.append(row | ({name: values[step // 10] for name, values in scores.items()} if step % 10 == 9 else {}))
    return rows


def write_run(
    run: Path, world: Path, settings: Finetuning, losses: dict[str, float], scores: dict[str, list[float]]
) -> Path:
    """A finished run, without weights and labels."""
    run.mkdir()
    (run / "settings.json").write_text(json.dumps(asdict(settings), default=str))
    fingerprint = Records(world).card.fingerprint
    origin = {"data": str(world), "fingerprint": fingerprint, "environment": {"jax": "0.10.2"}}
    (run / "origin.json").write_text(json.dumps(origin))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in journal(losses, scores)))
    return run


def reported(run: Path) -> Page:
    report(run)
    return Page((run / "report.html").read_text())


def curves_of(page: Page) -> list[str]:
    """What is drawn, from the pictures' texts."""
    found = [re.match(r"Curves? (?:of (.*?) (?:over|by)|by epoch: (.*?);)", each["alt"]) for each in page.pictures]
    return [each[1] or each[2] for each in found if each]


@pytest.fixture(scope="module")
def bnneck(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs of which the second was the best. Not to be written to."""
    settings = Bnneck(backbone="small", epochs=3, image_size=SIZE)
    losses = {"loss": 4.0, "cross_entropy": 3.0, "triplet": 1.0}
    scores = {"validation_mAP": [0.2, 0.6, 0.4], "validation_rank_1": [0.3, 0.7, 0.5], "mAP": [0.1, 0.2, 0.25]}
    run = write_run(tmp_path_factory.mktemp("finetuned") / "neck", world, settings, losses, scores)
    network = BNNeck(body("small"), 5)
    variables = network.begin(jax.random.key(1), network.backbone.init(jax.random.key(0)))
    for name in ("finetuned", "best"):
        save(run / f"{name}.safetensors", Weights(network, variables))
    return run


@pytest.mark.parametrize(
    ("settings", "kind"),
    [(Pretraining(), PRETRAINING), (Bnneck(), BNNECK), (Mgn(), MGN), (ClusterContrast(), ADAPTATION)],
    ids=lambda each: each.short if isinstance(each, Kind) else "",
)
def test_a_method_is_known_by_its_settings(settings: Training, kind: Kind) -> None:
    assert kind_of(asdict(settings)) is kind
    assert kind_of({"backbone": "resnet50_ibn"}) is None


def test_a_fine_tuning_has_the_page_of_a_pretraining_and_its_own_parts(bnneck: Path) -> None:
    page = reported(bnneck)
    order = "Scores,Ranked lists,Where the network is active,A map of people,Who is who,Weights,Training,What was run"
    assert page.headings == order.split(",") and "Fine-tuning with a BNNeck: neck" in page.texts
    assert "30 steps, 3 of 3 epochs." in page.texts and page.texts_with("^small, BNNeck$")
    drawn = ["loss", "cross entropy", "triplet loss", "learning rate", "images/s"]
    assert curves_of(page) == [*drawn, "Scores on the way", "Scores of those who were set aside"]
    text = " ".join(page.texts)
    assert "at last mAP 0.400, rank 1 0.500." in text and "at last mAP 0.250." in text and "teacher" not in text


def test_the_best_epoch_is_named_and_its_weights_are_scored(bnneck: Path) -> None:
    texts = reported(bnneck).texts
    finetuned, best = texts.index("finetuned.safetensors"), texts.index("best.safetensors")
    assert texts[finetuned + 1 : finetuned + 3] == ["3", "0.400"]
    assert texts[best + 1 : best + 3] == ["2", "0.600"]
    assert any("ranked best after epoch 2" in text for text in texts)


def test_weights_that_a_test_set_has_chosen_are_said_to_be_so(bnneck: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(bnneck, tmp_path / "neck"))
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"select": "test"}))
    page = reported(run)
    best = page.texts.index("best.safetensors")
    assert page.texts[best + 1 : best + 3] == ["3", "0.250"] and "mAP in the test set" in page.texts
    assert page.texts_with("The people of the test set were ranked best after epoch 3")
    assert page.texts_with("chosen by the test set .*: their score there flatters them")


def test_the_identities_of_the_records_are_shown_if_they_are_those(bnneck: Path, world: Path) -> None:
    page = reported(bnneck)
    identity = np.array(Records(world).index["identity"])
    shown = [re.match(r"image (\d+) of identity (\d+)", each["alt"]) for each in page.pictures]
    pairs = [(int(each[1]), int(each[2])) for each in shown if each]
    assert len(pairs) > 20 and all(identity[number] == label for number, label in pairs)


def test_identities_of_other_data_are_not_shown(world: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", world, Bnneck(backbone="small", epochs=3), {"loss": 4.0}, {})
    (run / "origin.json").write_text(json.dumps({"data": str(world), "fingerprint": "another"}))
    assert reported(run).texts_with("No people are shown: .* is not what it was trained on")


def test_activity_in_front_of_a_neck_is_that_of_the_backbone_on_its_own_pixels() -> None:
    network = BNNeck(body("small"), 5)
    own = network.backbone.init(jax.random.key(0))
    weights = inside(Weights(network, network.begin(jax.random.key(1), own)))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    images = ((pixels / 255 - 0.5) / 0.5).astype(np.float32)
    last = np.asarray(network.backbone.apply(own, images, return_features=True)[1]["stage1"])
    maps = activity_maps(weights.network, weights.variables, pixels)
    np.testing.assert_allclose(maps, np.sqrt(np.mean(last**2, axis=-1)), rtol=1e-4)


# MGN.


def test_the_losses_of_many_heads_are_drawn_as_two_sums(world: Path, tmp_path: Path) -> None:
    heads = {f"cls_b{number}": 0.5 + number / 10 for number in range(8)}
    triplets = {f"triplet_b{number}": 0.4 for number in range(5)}
    losses = {"loss": 8.8} | heads | triplets
    page = reported(write_run(tmp_path / "run", world, Mgn(backbone=TOY, epochs=3), losses, {}))
    assert "Fine-tuning with MGN: run" in page.texts
    assert curves_of(page) == ["loss", "cross entropy", "triplet loss", "learning rate", "images/s"]
    curves = read_curves(journal(losses, {}))
    np.testing.assert_allclose(curves.values["cross_entropy"][1][:2], [6.8, 6.8 - 8 * 0.01])
    np.testing.assert_allclose(curves.values["triplet"][1][0], 2)
    rows = [page.texts.index(name.replace("_", " ")) for name in (*heads, *triplets)]
    assert rows == sorted(rows) and page.texts[rows[0] + 1 : rows[0] + 3] == ["0.455", "0.255"]
    assert page.texts_with("There are no weights yet")


# Adaptation.


@pytest.fixture
def adapted(world: Path, tmp_path: Path) -> Path:
    """A run of three epochs: at first each image is a cluster's, then one in five is nobody's."""
    settings = ClusterContrast(backbone=TOY, epochs=3, image_size=SIZE)
    run = write_run(tmp_path / "run", world, settings, {"loss": 3.0, "contrast": 3.0}, {})
    (run / "labels").mkdir()
    labels = truth(build(WORLD)["train"])
    for epoch in range(3):
        made = np.where(np.arange(len(labels)) % 5 < epoch, -1, np.maximum(labels, 0))
        path = run / "labels" / f"epoch-{epoch:05d}.npz"
        write_labelling(path, made, Records(world).card.fingerprint, {})
    return run


def test_an_adaptation_shows_its_clusters_epoch_by_epoch(adapted: Path, world: Path) -> None:
    network = encoder(body(TOY))
    variables = network.begin(jax.random.key(1), network.backbone.init(jax.random.key(0)))
    save(adapted / "finetuned.safetensors", Weights(network, variables))
    page = reported(adapted)
    assert "Adaptation by cluster contrast: run" in page.texts and "clustering: eps" in page.texts
    assert curves_of(page) == ["loss", "learning rate", "images/s", "clusters", "outliers"]
    images, people = len(Records(world)), len(np.unique(np.maximum(truth(build(WORLD)["train"]), 0)))
    outliers = int(np.count_nonzero(np.arange(images) % 5 < 2))
    assert page.texts_with(f"at last {people} of {images} images")
    assert page.texts_with(rf"at last {outliers}, {outliers / images:.1%} of all")
    assert page.texts_with("^As .*epoch-00002.npz has it") and page.texts_with(r"^Identity \d+: \d+ images")
    assert page.texts_with("^toy, cluster contrast$") and "A map of people" in page.texts
    assert "Where the network is active" not in page.texts  # it keeps no maps
    assert not page.texts_with("ranked best") and "Dotted" not in " ".join(page.texts)


def test_an_adaptation_that_has_just_begun_has_a_page(adapted: Path) -> None:
    for path in (adapted / "metrics.jsonl", *(adapted / "labels").iterdir()):
        path.unlink()
    page = reported(adapted)
    assert page.texts_with("No step has been written down yet") and page.texts_with("There are no clusters yet")
    assert page.texts_with("There are no weights yet")
