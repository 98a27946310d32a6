"""Images that ask, from files, folders and datasets; and the images of a gallery, where they still are."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from cion_jax.data import dataset
from cion_jax.data.files import Folder, is_remote
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import ImageFiles, ImageFolder, Images, embed_all
from cion_jax.evaluate.feature_store import digest
from cion_jax.gallery.rows import text
from cion_jax.gallery.store import Gallery
from cion_jax.terminal import ProgressBar, progress_bar
from cion_jax.weights.file import load

#: Images that are embedded together, at the most: one query should not wait for many rows of padding.
BATCH = 64


class Joined:
    """Images of several places, one behind the other."""

    def __init__(self, parts: Sequence[Images]):
        self.parts = parts
        self._starts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        """Write an image into an array, resized to its height and width."""
        part, own = self._place(number)
        part.pixels_into(out, own)

    def where(self, number: SupportsIndex) -> str:
        """The place of an image."""
        part, own = self._place(number)
        return part.where(own)

    def _place(self, number: SupportsIndex) -> tuple[Images, int]:
        part = bisect_right(self._starts, int(number)) - 1
        return self.parts[part], int(number) - self._starts[part]


def open_all(places: Sequence[Folder], split: str = "query") -> tuple[Joined, list[str]]:
    """The images in files, folders and datasets, in this order, and what to call each.

    Args:
        places: Image files, folders of them, and datasets.
        split: Which split of the datasets.
    """
    if not places:
        raise UserError("no images are given; name image files, folders of them, or datasets")
    parts: list[Images] = []
    names: list[str] = []
    for is_file, some in groupby(places, lambda place: not is_remote(place) and Path(place).is_file()):
        if is_file:
            files = [str(place) for place in some]
            parts.append(ImageFiles(Path(), files))
            names += files
        else:
            for place in some:
                part = _open(place, split)
                parts.append(part)
                names += _names(part)
    return Joined(parts), names


def embed_for(
    gallery: Gallery, images: Images, weights: Path | None = None, bar: ProgressBar = progress_bar
) -> np.ndarray:
    """The features of images, float32 (N, D), made as those of the gallery.

    Args:
        gallery: Its `origin` says how.
        images: The images.
        weights: Where the file of weights is now; without it where it was.
        bar: Shows how far it is.
    """
    origin = gallery.origin
    path = weights or Path(origin.weights_file)
    if not path.name:
        raise UserError("the index does not know with which weights its images were embedded; name them with --weights")
    loaded = load(path)
    if digest(loaded.variables) != origin.weights:
        raise UserError(f"{path}: not the weights that the index was made with; name those with --weights")
    batch = min(BATCH, 1 << (len(images) - 1).bit_length())
    with bar("embedding", len(images)) as progress:
        return embed_all(
            loaded.network,
            loaded.variables,
            images,
            image_size=origin.image_size,
            flip=origin.flip,
            precision=origin.precision,
            batch=batch,
            progress=progress,
        )


class GalleryImages:
    """The images of a gallery by row, where they still are."""

    def __init__(self, gallery: Gallery):
        self.rows = gallery.rows
        self.origin = gallery.origin

    def __len__(self) -> int:
        return len(self.rows)

    def pixels_into(self, out: np.ndarray, number: SupportsIndex) -> None:
        """Write an image into an array, resized to its height and width; a UserError where it is not there any more."""
        row = self.rows[number]
        if row["path"]:
            ImageFiles(Path(), [os.fsdecode(row["path"])]).pixels_into(out, 0)
        else:
            self._records.pixels_into(out, int(row["number"]))

    def where(self, number: SupportsIndex) -> str:
        """The path of an image, or the path that its record was imported from."""
        row = self.rows[number]
        if row["path"]:
            return text(row["path"])
        try:
            return self._records[int(row["number"])].source
        except (UserError, OSError, IndexError):
            return f"image {row['number']}"

    @cached_property
    def _records(self) -> Records:
        origin = self.origin
        if not origin.data or not (is_remote(origin.data) or dataset.is_dataset(origin.data)):
            raise UserError(f"{origin.data or 'nowhere'}: no dataset with the images of the index is there")
        records = Records(origin.data, origin.split)
        if records.card.fingerprint != origin.fingerprint:
            raise UserError(f"{origin.data}: other data than those that the index was made from")
        return records


def _open(place: Folder, split: str) -> Records | ImageFolder:
    if is_remote(place) or dataset.is_dataset(place):
        return Records(place, split).in_order()
    if not Path(place).exists():
        raise UserError(f"{place}: not there; name image files, folders of them, or datasets")
    return ImageFolder(Path(place))


def _names(part: Records | ImageFolder) -> list[str]:
    if isinstance(part, ImageFolder):
        return [part.where(number) for number in range(len(part))]
    return [f"{part.folder} {part.split} {number}" for number in range(len(part))]
