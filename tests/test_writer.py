"""Datasets are written whole, the same each time, and taken up where a killed run left them."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cion_jax.atomic import sole_writer, write_atomically
from cion_jax.config import Writing
from cion_jax.data import dataset as layout
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.hosts import main_writes
from sources import Blocks, contents

COMMAND = "import sys; from cion_jax.cli import main; sys.exit(main())"
SMALL = Writing(images_per_shard=40, workers=1)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_two_processes_write_the_same_bytes_as_one(dataset: Path, tmp_path: Path) -> None:
    sources = {"train": Blocks(200), "query": Blocks(20, seed=1)}
    write_dataset(tmp_path / "two", sources, Writing(images_per_shard=40, workers=2))
    assert contents(tmp_path / "two") == contents(dataset)


def test_shards_and_card_agree(dataset: Path) -> None:
    splits, _ = layout.read_card(dataset)
    assert splits["train"].shards == (40,) * 5 and splits["query"].shards == (20,)
    for name, split in splits.items():
        files = [layout.shard_path(dataset, name, n, len(split.shards)) for n in range(len(split.shards))]
        assert sum(path.stat().st_size for path in files) == split.bytes
    assert not (dataset / ".unfinished").exists()


def test_fingerprint_depends_on_content_and_not_on_sharding(tmp_path: Path) -> None:
    def written(name: str, source: Blocks, images_per_shard: int) -> str:
        return write_dataset(tmp_path / name, {"train": source}, Writing(images_per_shard, workers=1))[
            "train"
        ].fingerprint

    whole = written("a", Blocks(30), 30)
    assert written("b", Blocks(30), 7) == whole
    assert written("c", Blocks(30, seed=5), 30) != whole
    assert written("d", Blocks(30, first=10), 30) != whole


@pytest.mark.parametrize("survives", [0, 2, 5])
def test_finished_shards_are_not_written_again(survives: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop in the middle the same call writes only what is missing, and ends with the same bytes."""
    out = tmp_path / "out"
    read: list[int] = []
    resumed: list[bool] = []

    class Watched(Blocks):
        """Notes the first image of each part that is read, and stops before the shard that must not survive."""

        def encoded(self) -> Iterator[tuple[bytes, str]]:
            if len(read) == survives and not resumed:
                interrupt()
            read.append(self.first)
            return super().encoded()

    with monkeypatch.context() as patch:
        patch.setattr(layout, "write_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(out, {"train": Watched(200)}, SMALL)
    with pytest.raises(UserError, match="no finished dataset"):
        Records(out)

    resumed.append(True)
    write_dataset(out, {"train": Watched(200)}, SMALL)
    assert read == [0, 40, 80, 120, 160]
    write_dataset(tmp_path / "straight", {"train": Watched(200)}, SMALL)
    assert contents(out) == contents(tmp_path / "straight")


def test_a_finished_dataset_is_left_alone_by_the_same_call(own_dataset: Path) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in own_dataset.rglob("*")}

    before = written()
    write_dataset(own_dataset, {"train": Blocks(200), "query": Blocks(20, seed=1)}, SMALL)
    assert written() == before


def something_else(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("draft")


def another_dataset(out: Path) -> None:
    write_dataset(out, {"train": Blocks(10)}, SMALL)


def the_beginning_of_another(out: Path) -> None:
    with pytest.raises(UserError, match="does not decode"):
        write_dataset(out, {"train": Blocks(10, damaged=(3,))}, SMALL)


@pytest.mark.parametrize("what", [something_else, another_dataset, the_beginning_of_another])
def test_a_folder_that_holds_something_else_is_refused_untouched(what, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    what(out)
    before = contents(out)
    with pytest.raises(UserError, match="holds"):
        write_dataset(out, {"train": Blocks(20)}, SMALL)
    assert contents(out) == before


def test_nothing_to_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        write_dataset(tmp_path / "out", {"train": Blocks(0)}, SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_image_stops_the_writing_and_is_named(workers: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^blocks/57\.jpg: does not decode: .*--skip-damaged$"):
        write_dataset(tmp_path / "out", {"train": Blocks(200, damaged=(57,))}, Writing(40, workers))


def test_damaged_images_are_left_out_and_counted_on_request(tmp_path: Path) -> None:
    source = Blocks(100, damaged=(3, 57))
    split = write_dataset(tmp_path / "out", {"train": source}, Writing(40, workers=1, skip_damaged=True))["train"]
    assert (split.images, split.left_out, split.shards) == (98, 2, (39, 39, 20))
    frames = Records(tmp_path / "out").index["frame"]
    np.testing.assert_array_equal(frames, np.setdiff1d(np.arange(100), source.damaged))


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    """The command itself, killed outright with its writing processes running, from its first shard to its last."""
    world = [f"--{name}={value}" for name, value in (("identities", 12), ("videos", 6), ("test-identities", 4))]
    options = [*world, "--height=64", "--width=32", "--images-per-shard=8", "--workers=2"]

    def command(out: Path) -> list[str]:
        return [sys.executable, "-c", COMMAND, "data", "synth", str(out), *options]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run(command(straight), check=True, stdout=subprocess.DEVNULL)
    shards = len(list(straight.glob("*.tfrecord-*")))
    moments = random.Random(0)
    for finished in sorted(moments.sample(range(shards), 10)):
        with subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while len(list((killed / ".unfinished").glob("*.npy"))) < finished and process.poll() is None:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.03))
            process.kill()
        assert process.returncode == -signal.SIGKILL
    subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
    assert contents(killed) == contents(straight)


@pytest.mark.slow
def test_writing_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    size = ["--identities=400", "--videos=80", "--images-per-shard=100", "--workers=2"]
    with subprocess.Popen([sys.executable, "-c", COMMAND, "data", "synth", str(tmp_path / "out"), *size]) as process:
        parent = psutil.Process(process.pid)
        workers = []
        while len(workers) < 2 and process.poll() is None:
            time.sleep(0.01)
            workers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
        os.kill(process.pid, signal.SIGKILL)
    assert len(workers) == 2
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_two_processes_never_write_to_one_folder(dataset: Path, blocks: Blocks, tmp_path: Path) -> None:
    """Neither records nor anything else; whoever ends, however, lets go of it."""
    place = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(place, fcntl.LOCK_EX)  # as another process holds it
    with pytest.raises(UserError, match="another process is writing there"):
        write_dataset(tmp_path, {"train": blocks}, Writing(workers=1))
    with pytest.raises(UserError, match="another process is writing there"), main_writes(tmp_path):
        pass
    os.close(place)
    with main_writes(tmp_path), sole_writer(tmp_path):
        pass
    write_dataset(tmp_path, {"train": blocks}, Writing(workers=1))


def test_what_a_killed_process_left_beside_a_file_goes_with_the_next(tmp_path: Path) -> None:
    """What others are writing stays, and so does all that is not of this file."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".labels.npz.{dead.pid}", f".labels.npz.{os.getppid()}", f".other.npz.{dead.pid}", ".labels.npz.old"]
    for name in names:
        (tmp_path / name).touch()
    write_atomically(tmp_path / "labels.npz", lambda aside: aside.write_text("whole"))
    assert {path.name for path in tmp_path.iterdir()} == {"labels.npz", *names[1:]}
