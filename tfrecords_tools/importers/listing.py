"""The images and folders that stand in a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.columns import columns

_IMAGES = (".jpg", ".jpeg", ".png")


def list_images(source: Path, depth: int, within: str = "") -> np.ndarray:
    """Sorted paths, below the source, of the images that stand `depth` names below one of its folders.

    Hidden names are left out, and so are files of other kinds and images that stand higher or deeper.

    Args:
        source: The folder that paths are relative to.
        depth: 1 for images in the folder itself, 2 for images in its folders, and so on.
        within: The folder to look into, as a path below the source that ends with a slash.
    """
    (paths,) = columns(((path,) for path in _images_below(source / within, depth, within)), TEXT)
    return np.sort(paths)


def _images_below(folder: Path, depth: int, prefix: str) -> Iterator[str]:
    for name in list_names(folder, folders=depth > 1):
        if depth > 1:
            yield from _images_below(folder / name, depth - 1, f"{prefix}{name}/")
        else:
            yield prefix + name


def list_names(folder: Path, *, folders: bool) -> list[str]:
    """Names of the folders or of the images in a folder, in no particular order; hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir() if folders else entry.name.lower().endswith(_IMAGES))
            ]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; a folder was expected here") from None
