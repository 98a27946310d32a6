"""Labels made anew within a run, and epochs of so many steps."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.config import Pretraining
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.pretrain.state import TrainState
from cion_jax.run import pretraining, trainer
from cion_jax.run.pretraining import pretrain, relabel_epochs
from cion_jax.run.relabel import relabel
from processes import steps
from tiny import SETTINGS
from tiny_pretrain import ONE_STAGE, cion, damage, newest, nobody
from tiny_run import by_bits

pytestmark = [pytest.mark.xdist_group("trainer"), pytest.mark.usefixtures("tiny")]


def test_labels_made_anew_are_kept_and_made_again_after_a_death(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--relabel", "1", "2", "3", "--sigma", "0.1", "--tau", "0.02", "--min-images", "2"]
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    assert cion(whole, dataset, *options) == 0
    paths = sorted((whole / "labels").iterdir())
    assert len(paths) == 3
    for epoch, path in enumerate(paths, 1):
        labels = read_labelling(path, Records(dataset).card.fingerprint, None)
        with np.load(path) as arrays:
            message = json.loads(str(arrays["settings"]))
            assert len(arrays["noise"]) == 4  # of raw tracklets, and of three levels
        assert (message["epoch"], message["levels"], message["sigma"]) == (epoch, 3, 0.1)
        assert (labels == -1).any() and np.bincount(labels[labels >= 0]).min() >= 2
    np.testing.assert_array_equal(newest(whole).labels, labels)

    def dying(settings: Pretraining, *rest: Any) -> np.ndarray:
        relabel(settings, *rest)
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(pretraining, "relabel", dying)
        cion(ended, dataset, *options)
    assert cion(ended, dataset, *options) == 0
    jax.tree.map(np.testing.assert_array_equal, newest(ended), newest(whole))
    message = capsys.readouterr().err
    assert message.count("embedding images for new labels") == 7 == message.count("denoising for new labels")


def test_a_damaged_record_is_nobodys(own_dataset: Path, tmp_path: Path) -> None:
    damage(own_dataset, 7)
    options = ["--epochs", "2", "--relabel", "1", "--sigma", "2", "--tau", "0.02"]
    assert cion(tmp_path / "run", own_dataset, *options, "--skip-damaged") == 0
    labels = np.load(tmp_path / "run" / "labels" / "epoch-00001.npz")["labels"]
    assert np.flatnonzero(labels < 0).tolist() == [7]


def test_labels_that_leave_nobody_end_the_run(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cion(tmp_path / "run", dataset, "--relabel", "1", "--min-images", "999") == 1
    assert "epoch 1: denoising left nobody of 200 images; raise sigma" in capsys.readouterr().err


def test_raw_tracklets_reach_the_identity_level_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command without and with --relabel auto is one run, and with epochs by number another."""
    monkeypatch.setattr(pretraining, "relabel", by_bits)
    out, data, two = tmp_path / "run", nobody(tmp_path), ["--epochs", "2"]
    assert cion(out, data, *two) == 0
    assert json.loads((out / "settings.json").read_text())["relabel"] == "auto"
    assert (newest(out).labels != np.asarray(Records(data).index["tracklet"])).any()
    assert cion(out, data, *two, "--relabel", "auto") == 0
    assert "was finished" in capsys.readouterr().err
    assert cion(out, data, *two, "--relabel", "1") == 1
    assert "relabel was auto, not [1]" in capsys.readouterr().err


def test_auto_makes_labels_only_where_nothing_says_who_is_who(dataset: Path, tmp_path: Path) -> None:
    strangers, acquainted = Records(nobody(tmp_path)), Records(dataset)
    for epochs, expected in {100: (30, 48, 65), 10: (3, 5, 6), 3: (1, 2), 2: (1,), 1: ()}.items():
        assert relabel_epochs(replace(SETTINGS, epochs=epochs), strangers) == expected
    assert relabel_epochs(SETTINGS, acquainted) == ()
    assert relabel_epochs(replace(SETTINGS, labels=Path("labels.npz")), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, level="tracklet"), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, relabel=()), strangers) == ()
    assert relabel_epochs(replace(SETTINGS, relabel=(2,)), acquainted) == (2,)


def test_a_run_of_counted_steps_goes_on_to_the_same_bits(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within an epoch, before and after labels are made anew, and where K grows."""
    monkeypatch.setattr(pretraining, "relabel", by_bits)
    settings = replace(SETTINGS, epoch_steps=7, relabel=(1, 3))
    assert pretrain(settings, dataset, tmp_path / "whole")
    stops = [3, 7, 9, 14, 19, 21, 26]
    monkeypatch.setattr(trainer, "stop_requested", lambda: nullcontext(stops.__contains__))
    begun = [pretrain(settings, dataset, tmp_path / "stopped") for _ in range(len(stops) + 1)]
    assert begun == [False] * len(stops) + [True]
    jax.tree.map(np.testing.assert_array_equal, newest(tmp_path / "stopped"), newest(tmp_path / "whole"))
    rows = steps(tmp_path / "whole")
    assert steps(tmp_path / "stopped") == rows
    np.testing.assert_allclose([row["epoch"] for row in rows], np.arange(1, 29) / 7)


@pytest.mark.parametrize("level", ["instance", "tracklet", "identity"])
def test_all_levels_take_the_same_steps(
    level: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are known at the start, though at the identity level labels are made on the way."""

    def idle(state: TrainState, *arguments: Any) -> tuple[TrainState, dict[str, float]]:
        return state._replace(step=state.step + 1), {"loss": 1.0}

    monkeypatch.setattr(trainer, "jit_step", lambda *_: idle)
    monkeypatch.setattr(pretraining, "relabel", by_bits)
    assert pretrain(replace(ONE_STAGE, level=level, epoch_steps=4), nobody(tmp_path), tmp_path / "run")
    assert "begins with step 0 of 8" in capsys.readouterr().err
    assert len(steps(tmp_path / "run")) == 8
