"""Whom a supervised training learns from, and who is set aside to be scored."""

import re
from typing import NamedTuple, SupportsIndex

import numpy as np

from cion_jax.config import Kernel, Supervised
from cion_jax.data.labels import read_labelling
from cion_jax.data.names import listed_images
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.terminal import progress_bar
from cion_jax.untrusted import read_text

#: What is drawn, so that one draw does not depend on another.
_VALIDATION, _IDENTITIES, _IMAGES = range(3)


class Chosen:
    """Some of the records, as images to embed."""

    def __init__(self, records: Records, numbers: np.ndarray):
        self._records = records
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, number: SupportsIndex) -> str:
        """The place of an image, for messages."""
        return self._records.where(self._numbers[number])

    def pixels_into(self, out: np.ndarray, number: SupportsIndex, kernel: Kernel = "bilinear") -> None:
        """Write an image into an array, resized to its height and width."""
        self._records.pixels_into(out, self._numbers[number], kernel)


class Aside(NamedTuple):
    """Those who are set aside to be scored."""

    images: Chosen
    labels: np.ndarray
    """A row for each image, with its `identity` and `camera`."""


class Learned(NamedTuple):
    """The train split, divided."""

    labels: np.ndarray
    """The number of each image's identity, from 0 without gaps; -1 for those that are not learnt from."""
    aside: Aside | None
    """All images of the identities that are set aside."""

    @property
    def classes(self) -> int:
        """How many identities are learnt from."""
        return int(self.labels.max(initial=-1)) + 1


def divide(settings: Supervised, records: Records) -> Learned:
    """Who is learnt from and who is scored, as the settings ask for it; what cannot be learnt from is refused."""
    identity = _identities(settings, records)
    camera = np.array(records.index["camera"])
    aside = _set_aside(settings, records, identity, camera)
    rows = np.flatnonzero(np.isin(identity, aside))
    scored = np.array(records.index)[rows]
    scored["identity"] = identity[rows]
    identity[rows] = -1
    known = np.unique(identity[identity >= 0])
    if settings.identities_share < 1:
        kept = int(len(known) * settings.identities_share)
        known = _draw(settings, _IDENTITIES).permutation(known)[:kept]
        identity[~np.isin(identity, known)] = -1
    if settings.images_file is not None:
        listed = listed_images(settings.images_file, records, progress_bar)
        identity[~np.isin(np.arange(len(records)), listed)] = -1
    if settings.images_share < 1:
        identity[~_some_images(settings, identity)] = -1
    _check(settings, records, identity)
    labels = np.where(identity >= 0, np.searchsorted(np.unique(identity[identity >= 0]), identity), -1)
    return Learned(labels, Aside(Chosen(records, rows), scored) if len(rows) else None)


def _identities(settings: Supervised, records: Records) -> np.ndarray:
    if settings.labels is not None:
        identity = read_labelling(settings.labels, records.card.fingerprint, len(records))
    else:
        identity = np.array(records.index["identity"], np.int64)
    if settings.identities_file is not None:
        identity[~np.isin(identity, _listed(settings))] = -1
    if not (identity >= 0).any():
        remedy = "give a labelling with --labels, or learn without labels: `cion adapt`"
        raise UserError(f"{records.folder}: nobody in split {records.split} has an identity to learn from; {remedy}")
    return identity


def _listed(settings: Supervised) -> list[int]:
    path = settings.identities_file
    assert path is not None
    remedy = "write the number of one identity in each line"
    words = read_text(path, remedy).split()
    for word in words:
        if not re.fullmatch("[0-9]{1,9}", word):
            raise UserError(f"{path}: {word[:40]!a} is no identity; {remedy}")
    return [*map(int, words)]


def _draw(settings: Supervised, what: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, what])


def _set_aside(settings: Supervised, records: Records, identity: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """The identities that are scored."""
    if not settings.validation:
        return np.array([], np.int64)
    seen = np.unique(np.stack([identity, camera])[:, (identity >= 0) & (camera >= 0)], axis=1)
    several, cameras = np.unique(seen[0], return_counts=True)
    several = several[cameras > 1]
    count = round(len(several) * settings.validation)
    if count < 2:
        raise UserError(
            f"{records.folder}: {len(several):,} identities are seen by two cameras or more, of which a share of "
            f"{settings.validation:g} is set aside, and 2 are needed to rank them; give --validation 0 to train without"
        )
    return np.sort(_draw(settings, _VALIDATION).permutation(several)[:count])


def _some_images(settings: Supervised, identity: np.ndarray) -> np.ndarray:
    """Which images are kept: one of each identity, and others by chance until there are enough."""
    rows = _draw(settings, _IMAGES).permutation(np.flatnonzero(identity >= 0))
    _, first = np.unique(identity[rows], return_index=True)
    others = np.delete(rows, first)
    kept = np.zeros(len(identity), bool)
    kept[rows[first]] = True
    kept[others[: max(0, int(len(rows) * settings.images_share) - len(first))]] = True
    return kept


def _check(settings: Supervised, records: Records, identity: np.ndarray) -> None:
    _, counts = np.unique(identity[identity >= 0], return_counts=True)
    people = settings.batch // settings.instances
    if len(counts) < people:
        fitting = len(counts) * settings.instances
        remedy = f"choose --batch {fitting} at the most" if fitting else "learn from more"
        raise UserError(
            f"{records.folder}: {len(counts):,} identities to learn from, and a batch of {settings.batch} with "
            f"{settings.instances} images of each needs {people}; {remedy}"
        )
    if counts.max() < 2:
        raise UserError(
            f"{records.folder}: each identity to learn from has one image, and nothing can be learnt from that; give "
            "--images-share, --images-file or labels that leave more"
        )
