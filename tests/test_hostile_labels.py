"""Labellings that are not what they must be are refused in one line, by all who read them."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from tfrecords_tools.check import problems

_GOOD = np.arange(200) // 5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (_GOOD[:5], "5 labels for 200 images"),
        (np.append(_GOOD, 0), "201 labels for 200 images"),
        (_GOOD.astype(float), "labels are float64 of shape (200,)"),
        (_GOOD > 3, "labels are bool of shape (200,)"),
        (np.array(3), "labels are int64 of shape ()"),
        (_GOOD[:, None], "labels are int64 of shape (200, 1)"),
        (_GOOD.astype(str), "labels are <U21 of shape (200,)"),
        (np.zeros(200, [("a", "<i8")]), "shape (200,)"),
        (np.where(np.arange(200) == 7, -2, _GOOD), "label -2 of image 7 is not an identity"),
        (np.where(np.arange(200) == 9, 2**31, _GOOD), "label 2147483648 of image 9 is not an identity"),
        (np.where(np.arange(200) == 9, 2**64 - 1, _GOOD.astype(np.uint64)), "of image 9 is not an identity"),
    ],
    ids=["few", "many", "float", "bool", "0-D", "2-D", "text", "structured", "negative", "large", "unsigned"],
)
def test_labels_of_another_shape_type_or_range_are_refused(
    labels: np.ndarray, message: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labels.npz"
    np.savez_compressed(path, labels=labels, fingerprint=np.array(Records(dataset).card.fingerprint))
    commands = [
        ["data", "repack", str(dataset), str(tmp_path / "out"), "--order=grouped", f"--labels={path}"],
        ["data", "sheet", str(dataset), str(tmp_path / "sheet.png"), f"--labels={path}"],
    ]
    for command in commands:
        assert main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"cion: {path}: ") and message in line
    assert [each.name for each in tmp_path.iterdir()] == ["labels.npz"]


def test_labels_of_any_whole_numbers_are_the_same_labels(dataset: Path, tmp_path: Path) -> None:
    records = Records(dataset)
    for kind in (np.int8, np.uint16, ">i4", np.uint64):
        np.savez(tmp_path / "labels.npz", labels=_GOOD.astype(kind), fingerprint=records.card.fingerprint)
        labels = read_labelling(tmp_path / "labels.npz", records.card.fingerprint, len(records))
        assert labels.dtype == np.int64 and np.array_equal(labels, _GOOD)


def claiming(path: Path, name: str, dtype: str, shape: tuple[int, ...], size: int, fingerprint: str) -> None:
    """A labelling with one array of zeros, of `size` bytes, whose header claims any type and shape."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
        archive.writestr(f"{name}.npy", header.getvalue() + bytes(size))
        if name != "fingerprint":
            text = io.BytesIO()
            np.save(text, np.array(fingerprint))
            archive.writestr("fingerprint.npy", text.getvalue())


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "size", "message"),
    [
        ("labels", "<i8", (1 << 28,), 1 << 20, "claims 2,147,483,648 bytes and has 1,048,576"),
        ("labels", "<i8", (1 << 62, 1 << 62), 8, "bytes and has 8"),
        ("labels", "<i8", (0, 1 << 62, 1 << 62), 0, "labels are int64 of shape"),
        ("labels", "<i8", (1 << 24,), 8 << 24, "16,777,216 labels for 200 images"),
        ("fingerprint", "<U33554432", (), 4 << 25, "its fingerprint has 134,217,728 bytes"),
    ],
)
def test_a_small_file_that_claims_much_takes_no_memory(
    name: str, dtype: str, shape: tuple[int, ...], size: int, message: str, dataset: Path, tmp_path: Path
) -> None:
    fingerprint = Records(dataset).card.fingerprint
    claiming(tmp_path / "labels.npz", name, dtype, shape, size, fingerprint)
    tracemalloc.start()
    with pytest.raises(UserError) as refusal:
        read_labelling(tmp_path / "labels.npz", fingerprint, 200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in str(refusal.value)
    assert peak < 8 << 20


def test_check_names_labels_that_do_not_fit_the_split_that_they_were_made_for(own_dataset: Path) -> None:
    fingerprint = Records(own_dataset, "query").card.fingerprint
    path = own_dataset / "labels.npz"
    np.savez(path, labels=np.zeros(20, int), fingerprint=fingerprint)
    assert not [*problems(own_dataset)]
    np.savez(path, labels=np.zeros(200, int), fingerprint=fingerprint)
    assert [*problems(own_dataset)] == [f"{path}: 200 labels for 20 images; make the labels again"]


def test_changed_numbers_in_a_stored_labelling_are_noticed(dataset: Path, tmp_path: Path) -> None:
    fingerprint = Records(dataset).card.fingerprint
    path = tmp_path / "labels.npz"
    np.savez(path, labels=_GOOD, fingerprint=fingerprint)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x07\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0")] = 8
    path.write_bytes(data)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_labelling(path, fingerprint, len(_GOOD))
