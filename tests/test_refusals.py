"""What cannot be trained is refused in one line."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cion_jax.config import Pretraining, Writing
from cion_jax.data.labels import write_labelling
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.run.pretraining import check
from sources import Blocks
from tiny import SETTINGS
from tiny_pretrain import cion, nobody, saved

pytestmark = [pytest.mark.xdist_group("trainer"), pytest.mark.usefixtures("tiny")]


def test_other_settings_and_other_data_are_refused(
    dataset: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_dataset(other, {"train": Blocks(200, seed=5)}, Writing(workers=1))
    before = saved(finished)
    for refused, text in (
        (partial(cion, finished, other), f"{other}: not the data that this run was begun with"),
        (partial(cion, finished, dataset, "--seed", "3"), "begun with other settings"),
        (partial(cion, other, dataset), f"{other}: already holds something else; choose another folder"),
    ):
        assert refused() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cion: ") and text in line
    assert saved(finished) == before


def labelling(data: Path, tmp_path: Path) -> list[str]:
    write_labelling(tmp_path / "labels.npz", np.zeros(200), "another", {})
    return ["--labels", str(tmp_path / "labels.npz")]


def strangers(data: Path, tmp_path: Path) -> list[str]:
    return ["--relabel", "--data", str(nobody(tmp_path))]


def strangers_for_an_epoch(data: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(nobody(tmp_path)), "--epochs", "1"]


def windowed_strangers(data: Path, tmp_path: Path) -> list[str]:
    return ["--data", str(nobody(tmp_path)), "--shuffle-window", "4"]


def empty(data: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return ["--data", str(tmp_path / "empty")]


def scattered(data: Path, tmp_path: Path) -> list[str]:
    class Scattered(Blocks):
        @property
        def labels(self) -> np.ndarray:
            rows = super().labels
            rows["identity"][:9] = np.arange(100, 109)
            rows["identity"][-9:] = np.arange(100, 109)
            return rows

    write_dataset(tmp_path / "scattered", {"train": Scattered(80)}, Writing(workers=1))
    return ["--data", str(tmp_path / "scattered"), "--shuffle-window", "4"]


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--batch", "18"], ["a batch of 18 images does not split", "2 or 4 instances", "16 and 20 would"]),
        (["--batch", "20", "--accumulate", "2"], ["a batch of 20 images", "2 parts", "16 and 24 would"]),
        (["--stages", "0"], ["stages (0,)", "instances (2, 4)", "pair up"]),
        (["--stages", "1", "2"], ["stages (1, 2)", "the first at epoch 0"]),
        (["--backbone", "resnet50_ibm"], ["no backbone is called 'resnet50_ibm'", "resnet50_ibn"]),
        (["--backbone", "vit_tiny", "--global-size", "8", "8"], ["vit_tiny cannot take images of 8x8"]),
        (["--backbone", "vit_tiny", "--local-size", "8", "16"], ["vit_tiny cannot take images of 8x16"]),
        (["--model-axis", "2"], ["1 devices", "groups of 2", "divisor"]),
        (labelling, ["labels.npz: made for other data (fingerprint another"]),
        (strangers, ["nobody in split train has an identity", "relabel () make no", "--labels", "--level tracklet"]),
        (strangers_for_an_epoch, ["nobody in split train", "1 epochs with relabel auto make no", "at least 2 epochs"]),
        (empty, ["empty"]),
        (["--level", "tracklet", "--labels", "x.npz"], ["labels are for the identity level, not for tracklet"]),
        (["--level", "tracklet", "--relabel", "1"], ["relabel is for the identity level, not for tracklet"]),
        (["--relabel", "2", "1"], ["relabel (2, 1) must rise", "between epoch 1 and 3"]),
        (["--relabel", "4"], ["relabel (4,) must rise"]),
        (["--relabel", "1", "--sigma", "0"], ["sigma 0.0: distances go from 0 to 2"]),
        (["--shuffle-window", "-1"], ["shuffle_window is -1; it must be a number of batches"]),
        (["--shuffle-window", "4", "--relabel", "1"], ["shuffle_window is 4", "at epochs (1,)", "--shuffle-window 0"]),
        (windowed_strangers, ["shuffle_window is 4", "at epochs (1, 2, 3)", "--shuffle-window 0", "--level tracklet"]),
        (["--epoch-steps", "-1"], ["epoch_steps is -1", "0 for a pass over the data"]),
        (scattered, ["scattered: the images of 9 of 14 identities do not stand together", "--order grouped"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value[-2:]),
)
def test_what_cannot_work_is_refused_in_a_line(
    options: list[str] | Callable[[Path, Path], list[str]],
    texts: list[str],
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = options if isinstance(options, list) else options(dataset, tmp_path)
    capsys.readouterr()
    assert cion(tmp_path / "run", dataset, *result) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cion: ") and all(text in line for text in texts), line


def test_a_batch_must_split_over_the_devices() -> None:
    check(SETTINGS, 4)
    with pytest.raises(UserError, match=r"a batch of 16 images .* 8 devices x 1 parts x 2 or 4 instances; 32 would"):
        check(SETTINGS, 8)
    with pytest.raises(UserError, match="32 would"):
        check(replace(SETTINGS, model_axis=2), 8)  # they share prototypes, but images all the same
    check(replace(SETTINGS, model_axis=2), 4)


@pytest.mark.parametrize(("devices", "fitting"), [(16, (768, 1152)), (64, (1536,)), (256, (6144,))])
def test_the_batches_that_are_proposed_suit_every_stage(devices: int, fitting: tuple[int, ...]) -> None:
    """The paper's 960 images and its K of 2, 4, 6 and 8, on slices of a pod."""
    with pytest.raises(UserError, match=" and ".join(map(str, fitting)) + " would"):
        check(Pretraining(), devices)
    for batch in fitting:
        check(Pretraining(batch=batch), devices)
