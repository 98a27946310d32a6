"""Damaged weight files: reading one gives arrays or an error of one line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cion_jax.errors import UserError
from cion_jax.weights.foreign import read_state, write_state
from weight_files import FOUR, STATE, SUFFIXES, archive, evil, tensor


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
