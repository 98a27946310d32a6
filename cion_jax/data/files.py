"""Files of a dataset, wherever they are: on a disk, or in an object store (gs://, s3://, az://, hf://) by fsspec."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from etils import epath

from cion_jax.errors import UserError

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


def exists(path: Folder) -> bool:
    """Whether there is such a file."""
    return _from_store(path, lambda store, place: store.exists(place)) if is_remote(path) else Path(path).exists()


def read(path: Folder) -> bytes:
    """The whole of a file."""
    if not is_remote(path):
        return Path(path).read_bytes()
    return _from_store(path, lambda store, place: store.cat_file(place))


def read_range(path: Folder, start: int, size: int) -> bytes:
    """So many bytes of a file in an object store; fewer where it ends before."""
    return _from_store(path, lambda store, place: store.cat_file(place, start=start, end=start + size))


def _from_store(path: Folder, ask: Callable[[Any, str], Any]) -> Any:
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
        raise UserError(f"{path}: the store does not give it ({why}); see whether you may read there") from None
