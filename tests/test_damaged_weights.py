"""Damaged weight files: reading one gives arrays or an error of one line."""

from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cion_jax.errors import UserError
from cion_jax.weights.file import convert, load, plain, save
from cion_jax.weights.foreign import read_metadata, read_state, write_state
from golden_weights import state
from weight_files import FOUR, STATE, SUFFIXES, archive, assert_same, evil, tensor


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


def small_file(path: Path, **changed: float) -> None:
    """Weights of a resnet18 as our own file, with the first value of some keys changed before they are written."""
    values = {f"backbone.{key}": value for key, value in state("resnet18").items()}
    for key, value in changed.items():
        values[f"backbone.{key}"] = values[f"backbone.{key}"].copy()
        values[f"backbone.{key}"].flat[0] = value
    write_state(path, values, metadata={"backbone": "resnet18", "image_size": "256x128", "fused": "False"})


def test_whatever_is_changed_in_our_own_file_is_noticed(tmp_path: Path) -> None:
    """Each byte of header and numbers: a flipped bit is refused, or changes nothing that is read."""
    path = tmp_path / "weights.safetensors"
    metadata = {"backbone": "resnet18", "image_size": "256x128", "fused": "False"}
    write_state(path, {"w": np.arange(6.0), "v": np.ones((2, 3), np.float32)}, metadata=metadata)
    whole = path.read_bytes()
    before = read_metadata(path), read_state(path)
    accepted = 0
    for place in range(len(whole)):
        for bit in (0, 3, 6):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                after = read_metadata(path), read_state(path)
            except UserError:
                continue
            accepted += 1
            assert after[0].items() >= before[0].items(), place  # the digest itself may have lost its name
            assert_same(after[1], before[1])
    assert accepted <= 3 * len("digest")  # which are the letters of its name


def test_files_without_a_digest_still_load_and_others_tools_may_order_ours_anew(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    small_file(path)
    expected = read_state(path)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no dict
    for kept in (metadata, {name: text for name, text in metadata.items() if name != "digest"}):
        safetensors.numpy.save_file(tensors, path, kept)
        assert_same(read_state(path), expected)
        assert load(path).network.name == "resnet18"
    tensors["backbone.conv1.weight"] = 2 * tensors["backbone.conv1.weight"]
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(UserError, match=r"weights\.safetensors: its numbers or its names are not those"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"conv1.weight": np.nan}, "conv1.weight has NaN"),
        ({"layer1.0.bn1.bias": np.inf}, "layer1.0.bn1.bias has infinite values"),
        ({"bn1.running_var": -1e-3}, "bn1.running_var has negative variances"),
    ],
)
def test_numbers_that_no_network_has_are_refused_by_name(
    changed: dict[str, float], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    small_file(path, **changed)
    with pytest.raises(UserError, match=rf"weights\.safetensors: the weights are damaged, .*: {message}; take others"):
        load(path)
    with pytest.raises(UserError, match=message):
        convert(path, "resnet18")


def test_a_path_may_be_a_text(tmp_path: Path) -> None:
    small_file(tmp_path / "weights.safetensors")
    weights = load(str(tmp_path / "weights.safetensors"))
    save(str(tmp_path / "again.safetensors"), weights)
    save(tmp_path / "by_path.safetensors", load(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "by_path.safetensors").read_bytes()
    convert(str(tmp_path / "weights.safetensors"), "resnet18")


def test_how_many_batches_the_norms_have_seen_is_kept(tmp_path: Path) -> None:
    seen = {
        key: np.array(1000 + number) if key.endswith("num_batches_tracked") else value
        for number, (key, value) in enumerate(state("resnet18").items())
    }
    write_state(tmp_path / "there.pth", seen)
    weights, _ = convert(tmp_path / "there.pth", "resnet18")
    save(tmp_path / "ours.safetensors", weights)
    write_state(tmp_path / "back.pth", plain(load(tmp_path / "ours.safetensors")))
    assert (tmp_path / "back.pth").read_bytes() == (tmp_path / "there.pth").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_with_a_terabyte_of_nothing_behind_it_is_not_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write_state(path, STATE)
    with path.open("rb+") as file:
        file.truncate(1 << 40)  # a sparse file takes no room
    with pytest.raises(UserError, match=rf"weights\{suffix}: damaged"):
        read_state(path)
