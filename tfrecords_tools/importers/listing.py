"""The images and folders that stand in a folder."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.notices import say_left_out

_IMAGES = (".jpg", ".jpeg", ".png")


def list_images(source: Path, depth: int, within: str = "") -> np.ndarray:
    """Sorted paths, below the source, of the images that stand `depth` names below one of its folders.

    Hidden names are left out, and so are files of other kinds and images that stand higher or deeper; how many there
    are of each is said.

    Args:
        source: The folder that paths are relative to.
        depth: 1 for images in the folder itself, 2 for images in its folders, and so on.
        within: The folder to look into, as a path below the source that ends with a slash.
    """
    left_out: Counter[str] = Counter()
    (paths,) = columns(((path,) for path in _images_below(source / within, depth, within, left_out)), TEXT)
    for what, count in left_out.items():
        say_left_out(source / within, count, what)
    return np.sort(paths)


def say_unlisted(source: Path, paths: np.ndarray) -> None:
    """Say how many images a list does not name although they stand in the same folders as those that it names."""
    folders, _, names = np.strings.rpartition(paths, np.array("/", TEXT))
    order = np.argsort(folders, kind="stable")
    unique, first = np.unique(folders[order], return_index=True)
    unlisted = 0
    for folder, listed in zip(unique, np.split(names[order], first[1:]), strict=True):
        unlisted += len({*list_names(source / folder, folders=False)} - {*listed})
    say_left_out(source, unlisted, "images that are not listed, from the folders of those that are")


def _images_below(folder: Path, depth: int, prefix: str, left_out: Counter[str]) -> Iterator[str]:
    for name in list_names(folder, folders=depth > 1, left_out=left_out):
        if depth > 1:
            yield from _images_below(folder / name, depth - 1, f"{prefix}{name}/", left_out)
        else:
            yield prefix + name


def list_names(folder: Path, *, folders: bool, left_out: Counter[str] | None = None) -> list[str]:
    """Names of the folders or of the images in a folder, in no particular order; the others are counted by kind."""
    names = []
    others: Counter[str] = Counter()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if what := _unwanted(entry, folders):
                    others[what] += 1
                else:
                    names.append(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; a folder was expected here") from None
    if left_out is not None:
        left_out.update(others)
    return names


def _unwanted(entry: os.DirEntry[str], folders: bool) -> str:
    """What is left out with an entry of a folder; nothing if it is wanted."""
    is_image = entry.name.lower().endswith(_IMAGES)
    if entry.name.startswith("."):
        return "hidden files and folders"
    if folders:
        higher = "images that stand higher than expected" if is_image else "files that are no images"
        return "" if entry.is_dir() else higher
    deeper = "folders among the images" if entry.is_dir() else "files that are no images"
    return "" if is_image else deeper
