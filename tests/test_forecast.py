"""What a run would be: told without running it, and true of it."""

from dataclasses import replace
from pathlib import Path

import jax
import pytest

from cion_jax.cli import main
from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.state import init_state
from cion_jax.run import forecast as module
from cion_jax.run.forecast import Memory, forecast, memory
from cion_jax.run.pretraining import model_of, pretraining
from cion_jax.run.sharding import make_mesh
from tiny import FAMILY, SETTINGS


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)


@pytest.fixture(scope="module")
def needed() -> Memory:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO, "tiny", FAMILY)
        return memory(pretraining(SETTINGS), 4, make_mesh(1, 1))


def test_parameters_and_moments_are_counted_to_the_byte(needed: Memory) -> None:
    state = init_state(model_of(SETTINGS), SETTINGS.head, SETTINGS.optimization, jax.random.key(0))
    size = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(getattr(state, name))) for name in state._fields}
    assert needed.parameters == size["student"] + size["teacher"] + size["batch_stats"] + size["center"]
    assert needed.opt_state == size["opt_state"]


def test_an_image_needs_at_least_its_crops(needed: Memory) -> None:
    """In float32, two of 32 x 16 and one of 16 x 8, beside the image itself; and not a hundred times that."""
    crops = 4 * 3 * (2 * 32 * 16 + 16 * 8)
    assert crops + 3 * 32 * 16 < needed.image < 100 * crops


def test_what_fits_is_what_is_left_for_images() -> None:
    needed = Memory(parameters=100, opt_state=50, temporaries=10, image=7, images=4)
    assert needed.total == 188
    assert [needed.fits(limit) for limit in (100, 160, 166, 167, 188)] == [0, 0, 0, 1, 4]


def test_it_tells_the_batches_of_each_stage(dataset: Path) -> None:
    lines = forecast(pretraining(replace(SETTINGS, level="tracklet")), dataset)
    assert lines[0].startswith(f"{dataset}: 200 images of ")
    assert [line for line in lines if line.startswith(("| 0 to 1 | 2 |", "| 2 to 3 | 4 |"))]
    assert lines[-1].endswith("--accumulate 1")
    (work,) = [line for line in lines if "steps if labels stay" in line]
    rows = [line.split("|") for line in lines if line.startswith(("| 0 to 1 | 2 |", "| 2 to 3 | 4 |"))]
    assert work.startswith(f"{sum(2 * int(row[3]) for row in rows):,} steps")


def test_it_tells_when_labels_are_made_anew_and_no_batches_that_it_cannot_know(
    dataset: Path, needed: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory", lambda *_: needed)
    anew = replace(SETTINGS, relabel=(1, 3))
    lines = forecast(pretraining(anew), dataset)
    assert [line[:8] for line in lines if "as new labels need" in line] == ["| 1 to 1", "| 2 to 2", "| 3 to 3"]
    assert "Labels are made anew at the start of epochs 1, 3." in lines
    lines = forecast(pretraining(replace(anew, epoch_steps=7)), dataset)
    assert sum(line.endswith("| 7 |") for line in lines) == 4
    assert not [line for line in forecast(pretraining(SETTINGS), dataset) if "anew" in line]


def test_nothing_is_written(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(Path(__file__).parent / "support" / "tiny_run.py")
    assert main(["pretrain", run, "--data", str(dataset), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "the optimizer's moments" in capsys.readouterr().out and not (tmp_path / "run").exists()
    assert main(["pretrain", run, "--data", str(dataset), "--out", str(tmp_path), "--dry-run", "--batch", "17"]) == 1
    assert "does not split" in capsys.readouterr().err
