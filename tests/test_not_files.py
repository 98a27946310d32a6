"""What stands in the place of a file without being one is refused at once, and closed pipes end a command quietly."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cion_jax.cli import main
from cion_jax.config import Bnneck
from cion_jax.data import dataset as layout
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.group_table import read_groups
from cion_jax.evaluate.query_gallery import load_npz
from cion_jax.recipes import recipe
from cion_jax.run.journal import read_metrics
from cion_jax.run.learned import divide
from cion_jax.untrusted import read_json
from cion_jax.weights.foreign import read_metadata, read_state
from tfrecords_tools.importers.cional import cional
from tfrecords_tools.importers.manifest import manifest


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket must be short
        end.bind(path.name)
        os.chdir(here)


#: What may stand there, and what it is called.
THINGS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": listen,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "": lambda path: None,
}
READERS: dict[str, Callable[[Path], object]] = {
    "labels.npz": lambda path: read_labelling(path, None, None),
    "features.npz": load_npz,
    "weights.pth": read_state,
    "weights.safetensors": read_metadata,
    "metrics.jsonl": read_metrics,
    "settings.json": lambda path: read_json(path, "name another"),
    "settings.py": lambda path: recipe(str(path)),
    "groups.csv": read_groups,
    "list.csv": manifest,
    "list.json": lambda path: cional(path.parent, annotations=path),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_it(name: str, thing: str, tmp_path: Path) -> None:
    path = tmp_path / name
    THINGS[thing](path)
    with pytest.raises(UserError, match=f"{re.escape(name)}: {f'{thing}, not a file' if thing else 'not there'}; "):
        READERS[name](path)


@pytest.mark.parametrize("thing", [name for name in THINGS if name])
@pytest.mark.parametrize("name", ["cion.json", "cion-train.index.npy", "cion-train.tfrecord-00001-of-00005"])
def test_no_file_of_a_dataset_may_be_something_else(name: str, thing: str, own_dataset: Path) -> None:
    (own_dataset / name).unlink()
    THINGS[thing](own_dataset / name)
    with pytest.raises(UserError, match=f"{name}: {thing}, not a file; "):
        Records(own_dataset)[50]
    assert main(["data", "check", str(own_dataset)]) == 1


def test_nor_may_the_tfds_metadata_or_a_list_of_identities(own_dataset: Path, tmp_path: Path) -> None:
    (own_dataset / layout.TFDS[0]).unlink()
    os.mkfifo(own_dataset / layout.TFDS[0])
    assert main(["data", "check", str(own_dataset)]) == 1
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"list\.txt: a pipe, not a file"):
        divide(Bnneck(identities_file=tmp_path / "list.txt"), Records(own_dataset))


@pytest.mark.parametrize("text", ["1 x", "-1", "1" * 30, "1.5"])
def test_a_list_of_identities_holds_identities(text: str, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=r"list\.txt: '.*' is no identity; write the number of one"):
        divide(Bnneck(identities_file=tmp_path / "list.txt"), Records(dataset))


def test_a_line_without_an_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "list.csv").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file takes no room
    with pytest.raises(UserError, match=r"list\.csv:1: has more than"):
        manifest(tmp_path / "list.csv")


@pytest.mark.parametrize("options", [["data", "stats"], ["data", "check"], ["--help"]], ids=["table", "lines", "help"])
def test_a_closed_pipe_ends_a_command_quietly(
    options: list[str], dataset: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as unread:  # noqa: PTH123  # it is no path
        monkeypatch.setattr(sys, "stdout", unread)
        assert main([*options, *([str(dataset)] if "data" in options else [])]) == 141
    assert not capfd.readouterr().err


def test_a_process_behind_a_closed_pipe_ends_quietly_too(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from cion_jax.cli import main; sys.exit(main(['data', 'check', '--help']))"
    ended = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_another_broken_pipe_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """That of a process that has ended, say: it is no reason to be quiet."""

    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("tfrecords_tools.stats.statistics", broken)
    assert main(["data", "stats", "."]) == 1
    assert "Broken pipe" in capsys.readouterr().err
