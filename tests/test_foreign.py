"""Weight files: what PyTorch writes is read, what we write PyTorch reads, and nothing in a file is ever run."""

import argparse
import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cion_jax.errors import UserError
from cion_jax.weights import pickles
from cion_jax.weights.arrays import STORAGES
from cion_jax.weights.foreign import read_metadata, read_state, split_prefixes, write_state
from cion_jax.weights.pickles import Tensor, load

SUFFIXES = (".pth", ".safetensors")
PLAIN = [name for name in STORAGES if name != "bfloat16"]
STATE = {
    "stem.weight": np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32),
    "norm.running_var": np.ones(4, np.float32),
    "norm.num_batches_tracked": np.array(2**40),
    "bias": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "a": np.zeros((2, 0, 3), np.float64),
}
EMPTY = b"\x80\x02}."


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and found[key].shape == value.shape, key
        assert found[key].tobytes() == value.tobytes(), key
        assert found[key].flags.writeable, key


def archive(path: Path, content: bytes, entries: dict[str, bytes] | None = None, method: int = 0) -> Path:
    """A zip archive as torch.save makes it, around any pickle and any entries."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in (entries or {}).items():
            file.writestr(name, data)
    return path


def tensor(
    offset: int = 0, shape: tuple = (4,), strides: tuple = (1,), count: int = 4, kind: str = "torch\nFloatStorage"
) -> bytes:
    """A pickle of {"w": one tensor in storage 0}, in opcodes of protocol 2."""

    def plain(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    storage = b"(" + plain("storage") + f"c{kind}\n".encode() + plain("0") + plain("cpu") + plain(count) + b"tQ"
    arguments = b"(" + storage + plain(offset) + plain(shape) + plain(strides) + b"\x89}t"
    return b"\x80\x02}" + plain("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


FOUR = {"archive/data/0": np.arange(4, dtype="<f4").tobytes()}


# Round trips


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
    with pytest.raises(UserError, match=r"weights.pth: it has no 'teacher', only student; ask for that"):
        read_state(path)
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
        backbone, head = split_prefixes({prefix + key: value for key, value in both.items()})
        assert list(backbone) == ["a.b"] and backbone["a.b"] is one
        assert list(head) == ["mlp"] and head["mlp"] is two
    assert split_prefixes({"a.b": one, "head.weight": two}) == ({"a.b": one, "head.weight": two}, {})
    assert split_prefixes({"module.a.b": one}) == ({"a.b": one}, {})
    with pytest.raises(UserError, match=r"'fc.weight' beside backbone"):
        split_prefixes({"backbone.a": one, "fc.weight": two})
    with pytest.raises(UserError, match=r"differ only by 'module.'"):
        split_prefixes({"module.a": one, "a": two})


# PyTorch's own files


def saved(path: Path, content: object, **options: Any) -> Path:
    pytest.importorskip("torch").save(content, path, **options)
    return path


def numpies(state: dict) -> dict[str, np.ndarray]:
    half = {pytest.importorskip("torch").bfloat16, pytest.importorskip("torch").float16}
    return {key: (value.float() if value.dtype in half else value).detach().numpy() for key, value in state.items()}


def torch_state() -> dict:
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    return OrderedDict(
        {
            "weight": torch.randn(3, 4),
            "transposed": base.T,
            "view": base[1:3, ::2],
            "shared": base,
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "zero": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "half": torch.randn(5, 2).half().T,
            "bfloat": torch.randn(5, 2).bfloat16().T,
            "bfloat_zero": torch.tensor(0.3).bfloat16(),
            "bool": torch.tensor([True, False]),
            "parameter": torch.nn.Parameter(torch.randn(2)),
            **{
                str(kind): torch.arange(5).to(kind)
                for kind in (torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32)
            },
        }
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch_are_read(protocol: int, tmp_path: Path) -> None:
    state = torch_state()
    for content in (state, dict(state), {"state_dict": state, "arch": "vit"}, {"model": state}):
        path = saved(tmp_path / "weights.pth", content, pickle_protocol=protocol)
        assert_same(read_state(path), numpies(state))
        assert list(read_state(path)) == list(state)


def test_states_of_modules_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    assert_same(read_state(saved(tmp_path / "model.pt", model.state_dict())), numpies(model.state_dict()))
    with pytest.raises(UserError, match=r"refused: its pickle asks for 'torch.nn.modules.container.Sequential'"):
        read_state(saved(tmp_path / "model.pt", model))


def test_training_checkpoints_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(3, 4), "head": torch.nn.Linear(4, 2)})
    optimizer = torch.optim.AdamW(model.parameters())
    model["head"](model["backbone"](torch.ones(2, 3))).sum().backward()
    optimizer.step()
    teacher = {f"module.{key}": value + 1 for key, value in model.state_dict().items()}
    content = {
        "teacher": teacher,
        "student": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 5,
        "args": argparse.Namespace(
            lr=1e-3, betas=(0.9, 0.99), out=Path("x"), dim=np.float64(3), device=torch.device("cpu"), big=2**80
        ),
        "Loss": {"center": torch.ones(1, 5)},
        "fp16_scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "kind": torch.bfloat16,
        "size": torch.ones(2, 3).shape,
    }
    path = saved(tmp_path / "checkpoint.pth", content)
    assert_same(read_state(path), numpies(teacher))
    assert_same(read_state(path, "student"), numpies(model.state_dict()))
    backbone, head = split_prefixes(read_state(path))
    assert list(backbone) == list(head) == ["weight", "bias"]


def test_torch_reads_what_we_write(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    state = STATE | {name: np.arange(6).astype(name).reshape(2, 3) for name in PLAIN}
    for suffix in SUFFIXES:
        write_state(tmp_path / f"weights{suffix}", state)
    write_state(tmp_path / "wrapped.pth", state, wrap="teacher")
    found = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert list(found) == list(state) and type(found) is OrderedDict
    for tensors in (
        found,
        torch.load(tmp_path / "weights.pth", weights_only=True, mmap=True),
        torch.load(tmp_path / "wrapped.pth", weights_only=True)["teacher"],
        load_file(tmp_path / "weights.safetensors"),
    ):
        assert_same({key: value.numpy() for key, value in tensors.items()}, state)


def test_safetensors_of_torch_are_read(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    state = {key: value.detach().contiguous().clone() for key, value in torch_state().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert_same(read_state(tmp_path / "weights.safetensors"), numpies(state))


def test_the_legacy_format_of_torch_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.pth", torch_state(), _use_new_zipfile_serialization=False)
    with pytest.raises(
        UserError, match=r"old.pth: in the format of torch before 1\.6; save it again with torch >= 1\.6"
    ):
        read_state(path)


# Hostile pickles


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def evil(marker: Path) -> dict[str, bytes]:
    """Pickles that would touch a file, by the name that the refusal must give."""
    touch, code = f"touch {marker}", f"__import__('pathlib').Path({str(marker)!r}).touch()"
    nested = pickle.dumps(Calls(os.system, touch))
    attributes = Calls(getattr, Calls(__import__, "os"), "system")
    system = f"cos\nsystem\n(X{chr(len(touch))}\0\0\0{touch}t".encode()
    return {
        "posix.system": pickle.dumps({"w": Calls(os.system, touch)}, 2),
        "posix.system ": pickle.dumps({"w": Calls(os.system, touch)}, 4),
        "__builtin__.eval": pickle.dumps([Calls(eval, code)], 2),
        "builtins.eval": pickle.dumps([Calls(eval, code)], 4),
        "builtins.exec": pickle.dumps(OrderedDict(w=Calls(exec, code)), 5),
        "builtins.getattr": pickle.dumps(attributes, 4),
        "_pickle.loads": pickle.dumps(Calls(pickle.loads, nested), 4),
        "torch.hub.load": b"\x80\x02ctorch.hub\nload\n(X\x03\0\0\0x/yt" + b"R.",
        "torch.storage._load_from_bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n(t" + b"R.",
        "os.system": b"\x80\x02" + system + b"R.",
        "os.system ": b"\x80\x02}" + system + b"Rb.",
        "os.system  ": b"\x80\x02cargparse\nNamespace\n)\x81}X\x0c\0\0\0__setstate__cos\nsystem\nsb.",
        "torch.FloatStorage.__reduce__": b"\x80\x04\x8c\x05torch\x8c\x17FloatStorage.__reduce__\x93.",
        "collections.OrderedDict.__init__": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    }


def test_hostile_pickles_are_refused_by_name(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name, content in evil(marker).items():
        path = archive(tmp_path / "weights.pth", content)
        with pytest.raises(
            UserError, match=f"weights.pth: refused: its pickle asks for '{name.strip()}', weights never"
        ):
            read_state(path)
        assert not marker.exists()
        (tmp_path / "plain.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"a plain pickle, which could run anything"):
            read_state(tmp_path / "plain.pth")
        assert not marker.exists()


def test_those_pickles_would_do_harm(tmp_path: Path) -> None:
    """The control: Python's own unpickler runs them, and a call, an evaluation and a nested pickle leave their mark."""
    marker = tmp_path / "marker"
    for name in ("posix.system", "builtins.eval", "builtins.exec", "_pickle.loads", "os.system"):
        pickle.loads(evil(marker)[name])
        marker.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02(ios\nsystem\n.", "uses INST"),
        (b"\x80\x02(cos\nsystem\no.", "asks for 'os.system'"),
        (b"\x80\x02\x82\x01.", "uses EXT1"),
        (b"\x80\x04)}\x92.", "uses NEWOBJ_EX"),
        (b"\x80\x02Pid\n.", "uses PERSID"),
        (b"\x80\x02\x8f.", "uses EMPTY_SET"),
        (b"\x80\x02cargparse\nNamespace\n)\x81}X\x01\0\0\0aK\x01sb.", "holds a Named, not a state_dict"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}X\x06\0\0\0updateK\x01sb.", r"its .*empty|^$"),
        (b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02e\x85R.", "OrderedDict made from a list|tuple"),
        (b"\x80\x02K\x01}b.", "attributes for a int"),
        (b"\x80\x02K\x01)R.", "a int in the place of a Named"),
        (b"\x80\x02})K\x01s.", "a tuple as key"),
        (b"\x80\x02}\x8b" + struct.pack("<i", 99) + b"\x01" * 99 + b"K\x01s.", "a number too long for a key"),
        (b"\x80\x02K\x01Q.", "a int in the place of a tuple"),
        (
            b"\x80\x02(X\x07\0\0\0storagectorch\nSize\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ.",
            "something else than a storage",
        ),
        (tensor().replace(b"storage", b"Storage"), "something else than a storage"),
        (b"\x80\x02]K\x01K\x02s.", "a list in the place of a dict"),
        (b"\x80\x02}K\x01a.", "a dict in the place of a list"),
        (b"\x80\x02e.", "damaged"),
        (b"\x80\x02R.", "stack runs dry"),
        (b"\x80\x02.", "damaged"),
        (b"", "damaged"),
        (b"\x80\x02N", "damaged"),
        (b"\x80\x02h\x05.", "damaged .*KeyError 5"),
        (b"\x80\x02N.", "holds a NoneType, not a state_dict"),
        (b"\x80\x02}X\x01\0\0\0aK\x01s.", "'a' is a int, so this is no state_dict"),
        (b"\x80\x02}K\x05K\x01s.", "'5' is a int"),
        (b"\x80\x02cos\\q\nsystem\n.", "refused|damaged"),
        (b"\x80\x02cnew\xff\nline\n.", "damaged"),
        (b"\x80\x04\x8c\x04new\n\x8c\x04line\x93.", r"asks for 'new\\n.line'"),
    ],
)
def test_odd_pickles_are_explained_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", content)
    if message.endswith("^$"):
        assert read_state(path) == {}
        return
    with pytest.raises(UserError, match=message) as caught:
        read_state(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.",
        b"\x80\x02" + b")" + b"\x85" * 300_000 + b".",
        b"\x80\x02Nr\xff\xff\xff\xff.",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x04\x8d" + b"\xff" * 8 + b".",
        b"\x80\x02" + b"N" * (65 << 20) + b".",
    ],
    ids=["nested key", "nested tuple", "memo", "long text", "longer text", "bytes"],
)
def test_pickles_that_exhaust_python_are_refused(content: bytes, tmp_path: Path) -> None:
    large = len(content) > 64 << 20
    with pytest.raises(UserError, match=r"data\.pkl has more than 67108864" if large else "a tuple|a NoneType|damaged"):
        read_state(archive(tmp_path / "weights.pth", content))
    if not large:
        return
    with pytest.raises(UserError, match="more than 67108864; save only"):
        load(content)


def test_a_pickle_of_too_many_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte would become an empty dict of 64."""
    monkeypatch.setattr(pickles, "_MOST_STEPS", 1000)
    load(b"\x80\x02" + b"}" * 998 + b".")
    with pytest.raises(UserError, match="its pickle has more than 1000 steps; save only"):
        load(b"\x80\x02" + b"}" * 999 + b".")


def test_copies_of_one_list_are_not_multiplied() -> None:
    """A list in the memo, made into dicts over and over, would grow with the square of the file."""
    with pytest.raises(ValueError, match="made from a list"):
        load(b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R.")


# Hostile tensors


def test_a_tensor_by_hand_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", tensor(1, (2, 2), (1, 1)), FOUR)
    assert_same(read_state(path), {"w": np.array([[1, 2], [2, 3]], np.float32)})
    path = archive(tmp_path / "weights.pth", tensor(3, (1,), (2**62,)), FOUR)
    assert_same(read_state(path), {"w": np.array([3], np.float32)})
    path = archive(tmp_path / "weights.pth", tensor(kind="torch.storage\nUntypedStorage", count=16), FOUR)
    assert read_state(path)["w"].dtype == np.uint8


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    entries = {"archive/data/0": np.arange(4, dtype=">f4").tobytes(), "archive/byteorder": b"big"}
    path = archive(tmp_path / "weights.pth", tensor(), entries)
    assert_same(read_state(path), {"w": np.arange(4, dtype=np.float32)})
    path = archive(tmp_path / "weights.pth", tensor(), {**FOUR, "archive/byteorder": b"middle"})
    with pytest.raises(UserError, match="byte order is b'middle', not little or big"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(offset=1), "reaches element 4 of 4"),
        (tensor(offset=-1), "no counts"),
        (tensor(shape=(-4,)), "no counts"),
        (tensor(shape=(5,)), "reaches element 4 of 4"),
        (tensor(strides=(2,)), "reaches element 6 of 4"),
        (tensor(strides=(-1,)), "no counts"),
        (tensor(strides=(2**62,)), "reaches element"),
        (tensor(strides=(2**64,)), "no counts"),
        (tensor(strides=(True,)), "no counts"),
        (tensor(shape=(2, 2)), "2 sizes and 1 strides"),
        (tensor(shape=(1,) * 65, strides=(1,) * 65), "no short list"),
        (tensor(shape=(2**40,), strides=(0,)), "repeats 4 numbers"),
        (tensor(shape=(0, 2**62, 2**62), strides=(1, 1, 1)), "damaged"),
        (tensor(count=5), "has 16 bytes, not 5 of float32"),
        (tensor(count=2**62, shape=(2**62,)), "would take"),
        (tensor(count=2**62), "has 16 bytes, not"),
        (tensor(kind="torch\nDoubleStorage"), "has 16 bytes, not 4 of float64"),
        (tensor(kind="torch\nComplexFloatStorage"), "refused.*ComplexFloatStorage"),
        (tensor(kind="torch\nbool"), "something else than a storage"),
    ],
)
def test_tensors_stay_inside_their_storage(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_state(archive(tmp_path / "weights.pth", content, FOUR))


def test_many_views_of_one_storage_do_not_fill_the_memory(tmp_path: Path) -> None:
    count = 1 << 16
    one = tensor(count=count, shape=(count,))[len(b"\x80\x02}") : -1]

    def views(number: int) -> Path:
        content = b"".join(one.replace(b"w", b"%c" % (97 + view), 1) for view in range(number))
        entries = {"archive/data/0": bytes(4 * count)}
        return archive(tmp_path / "weights.pth", b"\x80\x02}" + content + b".", entries)

    assert len(read_state(views(10))) == 10
    with pytest.raises(UserError, match="would take"):
        read_state(views(20))


def test_damaged_bools_are_bools(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", tensor(kind="torch\nBoolStorage"), {"archive/data/0": b"\0\1\2\xff"})
    assert_same(read_state(path), {"w": np.array([False, True, True, True])})


# Hostile archives


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "archive/../../x", "C:/x", "..\\x", "\\x"])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused: its zip archive has an entry named"):
        read_state(archive(tmp_path / "weights.pth", EMPTY, {name: b""}))


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", tensor(count=10**7), {"archive/data/0": bytes(4 * 10**7)}, 8)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"is compressed, torch.save leaves that"):
        read_state(path)


def test_duplicates_and_strangers_and_gaps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, EMPTY, {"archive/data.pkl": EMPTY})
    with pytest.raises(UserError, match="two entries of one name"):
        read_state(path)
    with pytest.raises(UserError, match=r"with 2 data\.pkl"):
        read_state(archive(path, EMPTY, {"other/data.pkl": EMPTY}))
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(UserError, match=r"with 0 data\.pkl, so not by torch\.save"):
        read_state(path)
    with pytest.raises(UserError, match="'archive/data/0' is missing"):
        read_state(archive(path, tensor()))


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", tensor(), FOUR)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2") + 20  # sizes in the central directory, of the last entry
    data[place : place + 8] = struct.pack("<II", 1 << 31, 1 << 31)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"claim more than the .* bytes of the file"):
        read_state(path)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "weights.pth", tensor(), FOUR)
    path.write_bytes(path.read_bytes().replace(FOUR["archive/data/0"], bytes(16)))
    with pytest.raises(UserError, match=r"damaged .*CRC"):
        read_state(path)


# Files that are no weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n <!DOCTYPE html><html>", "a web page, not weights"),
        (b"<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        (pickle.dumps({}, 2), "a plain pickle"),
        (
            bytes.fromhex("80028a0a6cfc9c46f9206aa850192e") + b"rest",
            "torch before 1.6; save it again with torch >= 1.6",
        ),
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
    with pytest.raises(UserError, match=r"missing.pth: unreadable .*No such file"):
        read_state(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="a folder, not a file"):
        read_state(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a device, not a file"):
        read_state(tmp_path / "pipe")
    with pytest.raises(UserError, match="null byte"):
        read_state(Path("\0"))


def test_types_that_are_not_known_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3, np.uint32)}))
    with pytest.raises(UserError, match="'x' has the type U32; save it as one of F64"):
        read_state(path)


# Damage everywhere


def samples(folder: Path) -> list[bytes]:
    for suffix in SUFFIXES:
        write_state(folder / f"sample{suffix}", STATE)
    archive(folder / "sample.big", tensor(), {**FOUR, "archive/byteorder": b"big"})
    archive(folder / "sample.evil", evil(folder / "marker")["posix.system"], FOUR)
    return [path.read_bytes() for path in sorted(folder.glob("sample*"))]


def examine(path: Path, data: bytes) -> None:
    """Reading gives arrays or a UserError of one line; anything else fails the test."""
    path.write_bytes(data)
    try:
        state = read_state(path)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
    else:
        assert all(isinstance(value, np.ndarray) and value.sum() is not None for value in state.values())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write_state(path, STATE)
    data = path.read_bytes()
    for size in range(0, len(data), 47):
        path.write_bytes(data[:size])
        with pytest.raises(UserError):
            read_state(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_damage_ends_in_one_line_or_in_arrays(draw: st.DataObject, tmp_path: Path) -> None:
    files = [path.read_bytes() for path in sorted(tmp_path.glob("sample*"))] or samples(tmp_path)
    data = bytearray(draw.draw(st.sampled_from(files)))
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(data)))
        match draw.draw(st.sampled_from(["flip", "cut", "splice", "repeat", "random"])):
            case "flip":
                data[place : place + 1] = draw.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[place : place + draw.draw(st.integers(1, 100))]
            case "splice":
                other = draw.draw(st.sampled_from(files))
                data[place : place + draw.draw(st.integers(0, 100))] = other[draw.draw(st.integers(0, len(other))) :]
            case "repeat":
                data[place:place] = data[place : place + draw.draw(st.integers(1, 200))]
            case "random":
                data[place:place] = draw.draw(st.binary(max_size=30))
    examine(tmp_path / "damaged", bytes(data))
    assert not (tmp_path / "marker").exists()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_damage_inside_of_the_pickle_too(draw: st.DataObject, tmp_path: Path) -> None:
    """Behind good checksums: the pickle itself is changed, opcode by opcode."""
    content = bytearray(tensor())
    for _ in range(draw.draw(st.integers(1, 5))):
        place = draw.draw(st.integers(0, len(content)))
        piece = st.sampled_from(
            [b"R", b"b", b"\x81", b"Q", b"(", b"t", b"u", b"s", b")", b"}", b"N", b"q\0", b"h\0", b"."]
        )
        content[place : place + draw.draw(st.integers(0, 2))] = draw.draw(piece | st.binary(max_size=4))
    examine(archive(tmp_path / "damaged", bytes(content), FOUR), (tmp_path / "damaged").read_bytes())


def test_every_single_byte_matters_or_not(tmp_path: Path) -> None:
    """Each byte of a small file of each format, set to each of a few values."""
    write_state(tmp_path / "small.safetensors", {"w": np.arange(3.0)})
    for data in (archive(tmp_path / "x", tensor(), FOUR).read_bytes(), (tmp_path / "small.safetensors").read_bytes()):
        for place in range(0, len(data), 2):
            for value in (0, 0x7F, 0xFF):
                examine(tmp_path / "damaged", data[:place] + bytes([value]) + data[place + 1 :])


def test_a_record_is_all_that_a_pickle_makes_of_a_tensor() -> None:
    content = load(tensor())
    assert type(content) is dict and type(content["w"]) is Tensor
