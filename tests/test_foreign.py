"""Weight files: what is written is read again, and other files are refused by name."""

import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cion_jax.errors import UserError
from cion_jax.weights.foreign import read_metadata, read_state, write_state
from cion_jax.weights.state_dicts import split_prefixes, stripped
from weight_files import PLAIN, STATE, SUFFIXES, assert_same


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write_state(path, STATE)
    assert_same(read_state(path), STATE)
    first = path.read_bytes()
    write_state(path, STATE)
    assert path.read_bytes() == first, "the same state gives the same bytes"
    if suffix == ".pth":
        assert {entry.date_time[0] for entry in zipfile.ZipFile(io.BytesIO(first)).infolist()} == {1980}, "at any time"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    (tmp_path / "plain").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode, "readable for whom other files are"


def test_order_is_kept(tmp_path: Path) -> None:
    write_state(tmp_path / "weights.pth", STATE)
    assert list(read_state(tmp_path / "weights.pth")) == list(STATE)
    write_state(tmp_path / "weights.safetensors", STATE)
    assert list(read_state(tmp_path / "weights.safetensors")) == sorted(STATE), "this format has no order of its own"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", PLAIN)
def test_every_type_survives(name: str, suffix: str, tmp_path: Path) -> None:
    bits = np.random.default_rng(1).integers(0, 256, 16 * 8, np.uint8)
    values = bits % 2 == 0 if name == "bool" else bits.view(name)
    if name == "float16":
        values = np.nan_to_num(values)
    for dtype in (values.dtype, values.dtype.newbyteorder(">")):
        write_state(tmp_path / f"weights{suffix}", {"x": values.astype(dtype), "zero": values[0].astype(dtype)})
        expected = values.astype(np.float32) if name == "float16" else values
        assert_same(read_state(tmp_path / f"weights{suffix}"), {"x": expected, "zero": np.asarray(expected[0])})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bfloat16_comes_as_the_float32_of_the_same_value(suffix: str, tmp_path: Path) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"weights{suffix}"
    write_state(path, {"x": bits.view(bfloat16), "zero": bits.view(bfloat16)[3, 4]})
    wide = (bits.astype(np.uint32) << 16).view(np.float32)
    assert_same(read_state(path), {"x": wide, "zero": np.asarray(wide[3, 4])})


def test_metadata_is_kept_and_in_order(tmp_path: Path) -> None:
    path, metadata = tmp_path / "weights.safetensors", {"b": "1", "a": 'two "ä"\n', "d": "", "c": "4"}
    write_state(path, STATE, metadata=metadata)
    assert read_metadata(path) == {**metadata, "format": "pt"}
    assert_same(read_state(path), STATE)
    assert re.findall(rb'"([a-d]|format)":"', path.read_bytes()) == [b"a", b"b", b"c", b"d", b"format"]
    write_state(tmp_path / "weights.pth", STATE)
    assert read_metadata(tmp_path / "weights.pth") == {}
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}))
    assert read_metadata(path) == {}
    for damaged in (b"hello", path.read_bytes()[:30], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"weights\.safetensors: "):
            read_metadata(path)


def test_a_wrapped_state_is_found_by_its_part(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write_state(path, STATE, wrap="student")
    assert_same(read_state(path, "student"), STATE)
    assert_same(read_state(path), STATE)
    with pytest.raises(
        UserError, match=r"weights.pth: it has no state_dict 'teacher', only 'student' \(5 keys\); name"
    ):
        read_state(path, "teacher")
    for wrap in ("state_dict", "model"):
        write_state(path, STATE, wrap=wrap)
        assert_same(read_state(path), STATE)


@pytest.mark.parametrize(
    ("name", "state", "wrap", "message"),
    [
        ("weights.npz", STATE, "", "no format for '.npz'; name a .pth"),
        ("weights", STATE, "", "no format for 'no suffix'"),
        ("weights.safetensors", STATE, "teacher", "cannot hold a state_dict under 'teacher'"),
        ("weights.pth", {"x": np.zeros(2, np.complex64)}, "", "x is complex64; convert it"),
        ("weights.safetensors", {"x": np.zeros(2, np.uint16)}, "", "x is uint16; convert it"),
        ("missing/weights.pth", STATE, "", "cannot be written .*No such file"),
        ("missing/weights.safetensors", STATE, "", "cannot be written .*No such file"),
    ],
)
def test_what_cannot_be_written_is_explained(name: str, state: dict, wrap: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_state(tmp_path / name, state, wrap=wrap)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="only safetensors can hold metadata"):
        write_state(tmp_path / "weights.pth", STATE, metadata={"a": "b"})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    write_state(path, STATE)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_state(path, {"x": np.zeros(3)})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_format_is_known_by_content(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        write_state(tmp_path / f"weights{suffix}", STATE)
        assert_same(read_state((tmp_path / f"weights{suffix}").rename(tmp_path / "weights.txt")), STATE)


def test_prefixes_are_split() -> None:
    one, two = np.ones(1), np.zeros(2)
    both = {"backbone.a.b": one, "head.mlp": two}
    for prefix in ("", "module."):
        backbone, head = split_prefixes(stripped({prefix + key: value for key, value in both.items()}, None)[0])
        assert list(backbone) == ["a.b"] and backbone["a.b"] is one
        assert list(head) == ["mlp"] and head["mlp"] is two
    assert split_prefixes({"a.b": one, "head.weight": two}) == ({"a.b": one, "head.weight": two}, {})
    with pytest.raises(UserError, match=r"'fc.weight' beside backbone.* --strip backbone"):
        split_prefixes({"backbone.a": one, "fc.weight": two})
    with pytest.raises(UserError, match=r"differ only by 'module.'"):
        stripped({"module.a": one, "a": two}, None)


# Files that are no weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n <!DOCTYPE html><html>", "a web page, not weights"),
        (b"<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        (pickle.dumps({}, 2), "a plain pickle"),
        (bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"rest", "damaged"),
        (b"PK\3\4", "damaged"),
        (b"hello", "neither a zip archive of torch.save nor safetensors .*b'hello'"),
        (b"\x02" + bytes(7) + b"{", "damaged"),
        (b"\xff" * 20, "neither"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"weights.pth: .*{message}"):
        read_state(path)


def test_unreadable_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing.pth: not there; name a file of weights"):
        read_state(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="a folder, not a file"):
        read_state(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe, not a file"):
        read_state(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"null (byte|character)"):
        read_state(Path("\0"))


def test_types_that_are_not_known_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3, np.uint32)}))
    with pytest.raises(UserError, match="'x' has the type U32; save it as one of F64"):
        read_state(path)
