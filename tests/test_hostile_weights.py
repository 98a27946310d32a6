"""Weight files made to do harm: nothing in them is run, and none fills the memory."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.weights import pickles
from cion_jax.weights.foreign import read_state
from cion_jax.weights.pickles import load
from cion_jax.weights.tensors import Tensor
from weight_files import FOUR, archive, assert_same, evil, tensor

EMPTY = b"\x80\x02}."


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
        (b"\x80\x02\x8f.", "holds a list, not a state_dict"),
        (b"\x80\x04\x8f(}\x90.", "holds a list, not a state_dict"),
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
        (b"\x80\x02}X\x01\0\0\0aK\x01s.", r"'a' \(int\) is no tensor, so this is no state_dict"),
        (b"\x80\x02}K\x05K\x01s.", r"'5' \(int\) is no tensor"),
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
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
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


def test_a_record_is_all_that_a_pickle_makes_of_a_tensor() -> None:
    content = load(tensor())
    assert type(content) is dict and type(content["w"]) is Tensor
