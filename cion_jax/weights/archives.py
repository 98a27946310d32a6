"""PyTorch's zip archives: `<root>/data.pkl` describes tensors whose numbers lie in the entries `<root>/data/<key>`."""

import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from pickle import encode_long
from typing import Any, BinaryIO

import numpy as np

from cion_jax.errors import UserError
from cion_jax.weights import pickles
from cion_jax.weights.arrays import STORAGES, State, contiguous_strides, raw_type, to_bytes
from cion_jax.weights.tensors import ORDERED, TENSOR, Named, Storage, Tensor, read_tensors

_ORDERS = {b"little": "little", b"big": "big"}


def read_archive(file: BinaryIO, choose: Callable[[Any], dict[str, Tensor]]) -> State:
    """The arrays of those tensors that `choose` picks from what the archive holds; no others are read."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, size)
        root = _root(entries)
        if entries[f"{root}data.pkl"].file_size > pickles.MOST_BYTES:
            raise UserError(f"its data.pkl has more than {pickles.MOST_BYTES} bytes; save only the state_dict")
        tensors = choose(pickles.load(archive.read(entries[f"{root}data.pkl"])))
        order = archive.read(entries[f"{root}byteorder"]) if f"{root}byteorder" in entries else b"little"
        if order not in _ORDERS:
            raise UserError(f"its byte order is {order[:20]!r}, not little or big; save it again")

        def numbers(storage: Storage) -> np.ndarray:
            return _numbers(archive, entries, root, storage, _ORDERS[order])

        return read_tensors(tensors, size, numbers)


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name; an archive that torch.save would not write is refused."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise UserError("refused: its zip archive has two entries of one name; save it again with torch.save")
    for name, entry in entries.items():
        parts = PureWindowsPath(name)  # knows drives and both slashes
        if parts.anchor or ".." in parts.parts:
            raise UserError(f"refused: its zip archive has an entry named {name[:80]!a}; save it with torch.save")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UserError(f"its entry {name[:80]!a} is compressed, torch.save leaves that; save it with torch.save")
    if sum(entry.file_size for entry in entries.values()) > size:
        raise UserError(f"its entries claim more than the {size} bytes of the file; it is damaged, fetch it again")
    return entries


def _root(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """The folder (with a slash) that the archive keeps everything in."""
    roots = [name.removesuffix("data.pkl") for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(roots) != 1:
        raise UserError(f"a zip archive with {len(roots)} data.pkl, so not by torch.save; name a file of weights")
    return roots[0]


def _numbers(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], root: str, storage: Storage, order: str
) -> np.ndarray:
    """All elements of a storage, flat and as `raw_type` has them."""
    name = f"{root}data/{storage.key}"
    dtype = raw_type(storage.kind, order)
    if name not in entries:
        raise UserError(f"its entry {name[:80]!a} is missing; fetch it again")
    if entries[name].file_size != storage.count * dtype.itemsize:
        expected = f"not {storage.count} of {storage.kind}"
        raise UserError(f"its entry {name[:80]!a} has {entries[name].file_size} bytes, {expected}; fetch it again")
    return np.frombuffer(archive.read(entries[name]), dtype)


def write_archive(path: Path, state: Mapping[str, np.ndarray], wrap: str = "") -> None:
    """Write a state_dict as torch.save does, below the key `wrap` if there is one; `torch.load` takes it as weights."""
    tensors = {key: _tensor(str(number), value) for number, (key, value) in enumerate(state.items())}
    with zipfile.ZipFile(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)  # stored, and dated 1980: same bytes every time

        add("data.pkl", b"\x80\x02" + _pickled({wrap: tensors} if wrap else tensors) + b".")
        add("byteorder", b"little")
        for number, value in enumerate(state.values()):
            add(f"data/{number}", to_bytes(value))
        add("version", b"3\n")


def _tensor(key: str, value: np.ndarray) -> Tensor:
    return Tensor(Storage(value.dtype.name, key, value.size), 0, value.shape, contiguous_strides(value.shape))


def _pickled(value: Any) -> bytes:
    """The opcodes (protocol 2, without header and end) that make PyTorch build a value."""
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            digits = encode_long(value)
            return b"\x8a" + bytes([len(digits)]) + digits
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(_pickled, value)) + b"t"
        case Named(name):
            module, _, attribute = name.rpartition(".")
            return f"c{module}\n{attribute}\n".encode()
        case dict():
            items = b"".join(_pickled(key) + _pickled(item) for key, item in value.items())
            return _pickled(Named(ORDERED)) + b")R" + b"(" + items + b"u"
        case Storage(kind, key, count):
            return _pickled(("storage", Named(STORAGES[kind]), key, "cpu", count)) + b"Q"
        case Tensor(storage, offset, shape, strides):
            hooks: dict[str, Any] = {}
            return _pickled(Named(TENSOR)) + _pickled((storage, offset, shape, strides, False, hooks)) + b"R"
    raise TypeError(f"no pickle for a {type(value).__name__}")
