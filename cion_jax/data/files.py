"""Files of a dataset, wherever they are: on a disk, or in an object store (gs://, s3://, az://, hf://) by fsspec."""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

from cion_jax import atomic
from cion_jax.atomic import claim_folder, write_atomically
from cion_jax.errors import UserError
from cion_jax.untrusted import file_digest

#: A folder or a file: as any kind of path, or by its URL.
Folder = str | os.PathLike[str]
#: What reads each kind of store.
DRIVERS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def located(path: Folder) -> Path:
    """A path that works like any other, and of a URL keeps the scheme."""
    return epath.Path(path) if is_remote(path) else Path(path)


def is_remote(path: Folder) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


class StoreError(UserError):
    """A store that does not do what it is asked; another time it may."""


def exists(path: Folder) -> bool:
    """Whether there is such a file or folder."""
    return _ask_store(path, lambda store, place: store.exists(place)) if is_remote(path) else Path(path).exists()


def is_folder(path: Folder) -> bool:
    """Whether there is such a folder."""
    return _ask_store(path, lambda store, place: store.isdir(place)) if is_remote(path) else Path(path).is_dir()


def size_of(path: Folder) -> int:
    """Bytes of a file."""
    return _ask_store(path, lambda store, place: store.size(place)) if is_remote(path) else Path(path).stat().st_size


def read(path: Folder) -> bytes:
    """The whole of a file."""
    if not is_remote(path):
        return Path(path).read_bytes()
    return _ask_store(path, lambda store, place: store.cat_file(place))


def read_range(path: Folder, start: int, size: int) -> bytes:
    """So many bytes of a file; fewer where it ends before."""
    if not is_remote(path):
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(size)
    return _ask_store(path, lambda store, place: store.cat_file(place, start=start, end=start + size))


def matching(folder: Folder, pattern: str) -> list[str]:
    """Paths of what is in a folder and no folder itself, relative to it, that match a pattern as of a shell; ** stands
    for any folders."""
    if not is_remote(folder):
        return [str(path.relative_to(folder)) for path in Path(folder).glob(pattern) if not path.is_dir()]

    def listed(store: Any, place: str) -> list[str]:
        found = store.glob(f"{place.rstrip('/')}/{pattern}", detail=True)
        return [name[len(place) :].lstrip("/") for name, facts in found.items() if facts["type"] == "file"]

    return _ask_store(folder, listed)


def put(path: Path, write: Callable[[Path], object], aside: Path | None = None) -> None:
    """Let `write` fill a file, which then stands at its place whole, as `write_atomically` does on a disk."""
    if not is_remote(path):
        write_atomically(path, write, aside)
        return
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder, "filled")
        write(filled)
        _ask_store(path, lambda store, place: store.put_file(str(filled), place), "write")


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it; in a store none need be made."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(FileNotFoundError):
        _ask_store(folder, lambda store, place: store.rm(place, recursive=True), "write")


def claim(out: Path, notes: Sequence[Path], check: Callable[[Path], None]) -> Path | None:
    """Make a folder one's own, as `claim_folder` does on a disk."""
    if not is_remote(out):
        return claim_folder(out, notes, check)
    for note in notes:
        if exists(note):
            check(note)
            return note
    own = tuple(f"{note.parent.name}/" for note in notes if note.parent != out)
    if any(not name.startswith(own) for name in matching(out, "**")):
        raise UserError(f"{out}: already holds something else; choose another folder or delete this one")
    return None


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing to a folder that is there; stores have no such promise."""
    return nullcontext() if is_remote(folder) else atomic.sole_writer(Path(folder))


def digest_of(path: Path, remedy: str) -> str:
    """SHA-256 of a file, in hex; `remedy` ends the line that says why a file on a disk cannot be read."""
    if not is_remote(path):
        return file_digest(path, remedy)
    return hashlib.file_digest(io.BufferedReader(StoredFile(path)), "sha256").hexdigest()


class StoredFile(io.RawIOBase):
    """A file in a store, of which only those blocks are fetched that are read; the last few stay in memory."""

    def __init__(self, path: Path, block: int = 4 << 20, kept: int = 8):
        """Open it; `block` bytes are fetched at a time, and the `kept` blocks that were used last stay."""
        self.name = str(path)
        self._size = size_of(path)
        self._place = 0
        self._block_size = block
        self._block = lru_cache(kept)(lambda number: read_range(path, number * block, block))

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or as much of it as the block has."""
        number, start = divmod(self._place, self._block_size)
        data = self._block(number)[start : start + len(buffer)] if self._place < self._size else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _ask_store(path: Folder, ask: Callable[[Any, str], Any], may: str = "read") -> Any:
    """What a store answers; fsspec itself repeats requests that fail in passing."""
    try:
        return ask(*fsspec.url_to_fs(str(path)))
    except FileNotFoundError:
        raise
    except ImportError:
        driver = DRIVERS.get(str(path).split("://")[0], "its driver of fsspec")
        raise UserError(f"{path}: {driver} is not installed; `pip install {driver}`") from None
    except Exception as error:  # each store has errors of its own
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        does_not = {"read": "give", "write": "take"}[may]
        raise StoreError(f"{path}: the store does not {does_not} it ({why}); see whether you may {may} there") from None
