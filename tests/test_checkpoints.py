"""What comes back from a checkpoint is what went in, bit for bit, or it is refused; and the right ones are kept."""

import gc
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.pretrain.state import TrainState
from cion_jax.run.checkpoints import Checkpoint, Checkpoints, Position

#: Orbax leaves coroutines behind when it cannot read a file, which complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LABELS = np.arange(-1, 50)
WITHIN = Position(0, 1)
NOTE = {"data": "a1b2"}


@pytest.fixture(scope="module", autouse=True)
def few_to_look_through() -> Iterator[None]:
    """What tests before these have left is not looked through for every one of these."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    for _ in range(5):  # a coroutine may hold another
        gc.collect()


def state(step: int, size: int = 3000) -> TrainState:
    """A state whose numbers depend on the step, with every kind of leaf that a real one has."""
    numbers = jnp.asarray(np.random.default_rng(step).standard_normal((size, 8)), jnp.float32)
    params = {"backbone": {"conv": {"kernel": numbers}}, "head": {"last_layer": {"weight_v": -numbers}}}
    teacher = jax.tree.map(lambda leaf: leaf / 3, params)
    return TrainState(
        jnp.asarray(step, jnp.int32), params, teacher, {"student": {}, "teacher": {}}, {"mu": params}, numbers[:, 0]
    )


TEMPLATE = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state(0))


def checkpoint(step: int, position: Position = WITHIN) -> Checkpoint:
    return Checkpoint(state(step), LABELS, position, NOTE)


def write(folder: Path, *steps: int) -> None:
    with Checkpoints(folder, 9, 0) as checkpoints:
        for step in steps:
            checkpoints.save(checkpoint(step))


def read(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    with Checkpoints(folder, 9, 0) as checkpoints:
        actual = checkpoints.restore(TEMPLATE)
    return actual


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found.state, expected.state)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.position == expected.position and found.note["data"] == NOTE["data"]


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 3 and 7. Not to be written to."""
    folder = tmp_path_factory.mktemp("two")
    write(folder, 3, 7)
    return folder


@pytest.fixture
def run(two: Path, tmp_path: Path) -> Path:
    """A copy of it to do harm to."""
    return Path(shutil.copytree(two, tmp_path / "run"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_the_newest_comes_back(two: Path) -> None:
    actual, complaints = read(two)
    assert_same(actual, checkpoint(7))
    assert not complaints


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
def test_a_damaged_newest_gives_way_to_the_one_before(run: Path, harm: object) -> None:
    assert callable(harm)
    harm(largest(run / "checkpoints" / "7"))
    actual, (complaint,) = read(run)
    assert_same(actual, checkpoint(3))
    assert "step 7 is damaged" in complaint and str(run / "damaged" / "7") in complaint and "\n" not in complaint
    assert (run / "damaged" / "7").is_dir() and steps(run) == [3]
    write(run, 7)
    assert_same(read(run)[0], checkpoint(7))


def test_a_position_that_was_changed_is_noticed(run: Path) -> None:
    note = run / "checkpoints" / "7" / "note" / "metadata"
    note.write_text(note.read_text().replace('"epoch": 0', '"epoch": 1'))
    actual, complaints = read(run)
    assert_same(actual, checkpoint(3))
    assert "not what was saved" in complaints[0]


@pytest.mark.slow
def test_no_flipped_byte_anywhere_gives_other_numbers(run: Path) -> None:
    folder = run / "checkpoints" / "7"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        flip(path)
        actual, complaints = read(run)
        assert_same(actual, checkpoint(3 if complaints else 7))
        if complaints:
            (run / "damaged" / "7").rename(folder)
        path.write_bytes(whole)


def test_when_all_are_damaged_the_run_is_not_begun_anew(run: Path) -> None:
    for step in (3, 7):
        flip(largest(run / "checkpoints" / str(step)))
    for _ in range(2):  # nor by repeating the command
        with pytest.raises(UserError, match=r"step 7 is damaged .* step 3 is damaged"):
            read(run)


def test_keeps_the_newest_and_whole_epochs_across_restarts(tmp_path: Path) -> None:
    """Two steps an epoch; every second epoch is kept for good."""
    for first in (1, 5, 9):
        with Checkpoints(tmp_path, 2, 2) as checkpoints:
            for step in range(first, first + 4):
                checkpoints.save(checkpoint(step, Position(*divmod(step, 2))))
    assert steps(tmp_path) == [4, 8, 11, 12]


def write_on_a_full_disk(folder: str, *steps: int) -> None:
    """In a process of its own: what Orbax has begun to write goes on when it has given up."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
    try:
        write(Path(folder), *steps)
    except UserError as error:
        print(error)


@pytest.mark.slow
@pytest.mark.parametrize("steps_asked", [(9,), (9, 10)], ids=["at the end", "while going on"])
def test_a_full_disk_is_told_and_leaves_the_one_before(run: Path, steps_asked: tuple[int, ...]) -> None:
    script = f"from test_checkpoints import *; write_on_a_full_disk({str(run)!r}, *{steps_asked})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    (message,) = result.stdout.splitlines()
    assert str(run / "checkpoints") in message and "cannot write a checkpoint" in message
    assert "that of step 7 is whole" in message and "Make room" in message
    actual, complaints = read(run)
    assert_same(actual, checkpoint(7))
    assert not complaints and steps(run) == [3, 7]


@pytest.mark.parametrize(("text", "is_heard"), [("Event loop is closed", False), ("anything else", True)])
def test_what_ends_behind_a_failed_save_is_not_heard(text: str, is_heard: bool) -> None:
    """Writes that go on when a save has failed find the loop closed that would wait for them."""
    code = f"""
import cion_jax.run.checkpoints

class Late:
    def __del__(self):  # nobody can be told of what is raised here
        raise RuntimeError({text!r})

Late()
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert (text in said) == is_heard
