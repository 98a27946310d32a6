"""Files of weights of any origin: PyTorch's (`.pth`, `.pt`, `.bin`) and safetensors, told apart by their content."""

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from cion_jax.untrusted import open_file
from cion_jax.weights import legacy, state_dicts
from cion_jax.weights.archives import read_archive, write_archive
from cion_jax.weights.arrays import CODES, STORAGES, State, raw_type, to_plain
from cion_jax.weights.tensors import Tensor

#: The name of the digest in the metadata of the safetensors files that we write; others have none.
_DIGEST = "digest"
_ZIP = b"PK\x03\x04"
_MOST_HEADER = 100 << 20  # of safetensors, its own limit

# All that reading a damaged file was seen to raise; `Warning` where warnings are errors.
_DAMAGE = (
    *(zipfile.BadZipFile, safetensors.SafetensorError, struct.error, EOFError, MemoryError, RuntimeError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Warning),
)


def read_state(path: Path, key: str | None = None) -> State:
    """The state_dict in a file, as NumPy arrays; half precision comes as float32. Nothing in the file is run.

    In a PyTorch file it may lie in dicts, under names that `key` joins by dots. By default it is the only one that
    there is, or that of `teacher` in a training checkpoint.
    """
    return read_noted(path, key)[0]


def read_noted(path: Path, key: str | None = None) -> tuple[State, list[str]]:
    """The same, and a line for what stands in the state_dict beside tensors."""
    notes: list[str] = []

    def choose(content: Any) -> dict[str, Tensor]:
        tensors, lines = state_dicts.choose(content, key)
        notes.extend(lines)
        return tensors

    with _opened(path) as (file, head):
        if head.startswith(_ZIP):
            return read_archive(file, choose), notes
        if legacy.is_legacy(head):
            return legacy.read_legacy(file, choose), notes
        if _is_safetensors(head):
            if key is not None:
                raise UserError("a safetensors file holds one state_dict, without a name; leave --key out")
            with safetensors.safe_open(path, "np"):  # compares header and size before all is read
                return _read_safetensors(path.read_bytes()), notes
        raise UserError(_explained(head))


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself, but for its digest; PyTorch's files say nothing."""
    with _opened(path) as (_, head):
        if _is_safetensors(head):
            with safetensors.safe_open(path, "np") as file:
                return {name: text for name, text in (file.metadata() or {}).items() if name != _DIGEST}
        if head.startswith(_ZIP) or legacy.is_legacy(head):
            return {}
        raise UserError(_explained(head))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bytes]]:
    """A file and its first bytes; whatever is wrong with it becomes a UserError that names it."""
    opened = open_file(path, "name a file of weights")
    try:
        with opened as file:
            yield file, file.read(4096)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(
            f"{path}: unreadable or damaged ({error.strerror or error}); name a whole file of weights"
        ) from None
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UserError(f"{path}: damaged ({reason!a}); fetch or save it again") from None


def write_state(
    path: Path, state: Mapping[str, np.ndarray], *, wrap: str = "", metadata: Mapping[str, str] | None = None
) -> None:
    """Write a state_dict in the format of the file's suffix, whole or not at all; the same state gives the same bytes.

    Args:
        path: Where to write, as .safetensors or as .pth, .pt or .bin.
        state: The state_dict.
        wrap: A key ("teacher", say) under which a dict in the file holds the state_dict, as checkpoints do; only for
            PyTorch's format.
        metadata: What `read_metadata` will read; only for safetensors.
    """
    for key, value in state.items():
        if value.dtype.name not in STORAGES:
            raise UserError(f"{path}: {key} is {value.dtype}; convert it to one of {', '.join(STORAGES)}")
    if path.suffix == ".safetensors" and wrap:
        raise UserError(f"{path}: safetensors cannot hold a state_dict under {wrap!r}; name a .pth file")
    if path.suffix != ".safetensors" and metadata:
        raise UserError(f"{path}: only safetensors can hold metadata; name a .safetensors file")
    if path.suffix == ".safetensors":
        _written(path, lambda aside: _write_safetensors(aside, state, metadata or {}))
    elif path.suffix in (".pth", ".pt", ".bin"):
        _written(path, lambda aside: write_archive(aside, state, wrap))
    else:
        raise UserError(f"{path}: no format for {path.suffix or 'no suffix'!r}; name a .pth or .safetensors file")


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= _MOST_HEADER and head[8:9] == b"{"


def _read_safetensors(data: bytes) -> State:
    state = {}
    entries = sorted(safetensors.deserialize(data))  # by name, for the library gives them in random order
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    tensors = ((key, entry["dtype"], entry["shape"], entry["data"]) for key, entry in entries)
    if _DIGEST in metadata and metadata[_DIGEST] != _digest(metadata, tensors):
        raise UserError(
            "its numbers or its names are not those that were written (the digest in its metadata differs); fetch or "
            "make it again"
        )
    for key, entry in entries:
        if entry["dtype"] not in CODES:
            raise UserError(f"its {key[:80]!a} has the type {entry['dtype']}; save it as one of {', '.join(CODES)}")
        name = CODES[entry["dtype"]]
        state[key] = to_plain(np.frombuffer(entry["data"], raw_type(name)).reshape(entry["shape"]), name)
    return state


def _digest(metadata: Mapping[str, str], tensors: Iterable[tuple[str, str, Sequence[int], Any]]) -> str:
    """SHA-256 of metadata and tensors (name, type, shape, bytes; by name), wherever they lie in the file."""
    digest = hashlib.sha256(repr(sorted(item for item in metadata.items() if item[0] != _DIGEST)).encode())
    for key, dtype, shape, numbers in tensors:
        digest.update(repr((key, dtype, [*shape], len(numbers))).encode())
        digest.update(numbers)
    return digest.hexdigest()


def _write_safetensors(path: Path, state: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    # The library writes the memory as it lies (transposed views would come out scrambled), metadata in random order.
    whole = {key: np.array(value, order="C", subok=False) for key, value in state.items()}
    data = memoryview(safetensors.numpy.save(whole, {**metadata, "format": "pt"}))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    noted = header.pop("__metadata__")
    entries = ((key, header[key]) for key in sorted(header))
    tensors = ((key, e["dtype"], e["shape"], data[start:][slice(*e["data_offsets"])]) for key, e in entries)
    header = {"__metadata__": dict(sorted({**noted, _DIGEST: _digest(noted, tensors)}.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(data[start:])


def _explained(head: bytes) -> str:
    """What a file is that does not hold weights, by how it begins, and what to do about it."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "the file is empty; fetch it again"
    if head[0] == 0x80 and head[1:2] <= b"\x05":
        return "a plain pickle, which could run anything; save the state_dict with torch.save or as .safetensors"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not weights; the link needs a login or another address, fetch it again"
    if text.startswith(b"version https://git-lfs"):
        return "only a pointer of Git LFS; fetch the file itself with git lfs pull"
    return f"neither a zip archive of torch.save nor safetensors (it begins with {head[:8]!r}); name a file of weights"


def _written(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically; a UserError if that fails."""
    try:
        write_atomically(path, write)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); name another place") from None
