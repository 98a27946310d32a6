"""A trial: queries and a gallery as features, with who and where each image is, from wherever they come."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.arrays import read_arrays
from cion_jax.data.dataset import CARD, is_dataset, read_card
from cion_jax.data.files import Folder
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.data.progress import progress
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import Precision, features
from cion_jax.evaluate.features import fingerprint_of, read_features
from cion_jax.models.zoo import Backbone, Variables

SPLITS = ("query", "gallery")
_FIELDS = ("identity", "camera")

#: Shows work of so many pieces while it lasts; what it yields is called with how many more are done.
Showing = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Trial(NamedTuple):
    """One row per image; labels have the fields `identity` and `camera`."""

    query: np.ndarray
    gallery: np.ndarray
    query_labels: np.ndarray
    gallery_labels: np.ndarray


def sides_of(data: Folder) -> tuple[Records, Records]:
    """The query and the gallery of a dataset folder."""
    if not is_dataset(data):
        raise UserError(f"{data}: no dataset folder ({CARD} is missing); evaluation sets come from `cion data import`")
    if missing := [split for split in SPLITS if split not in read_card(data)[0]]:
        raise UserError(f"{data}: has no {' and no '.join(missing)}; name an evaluation set, or a drawn world")
    query, gallery = (Records(data, split) for split in SPLITS)
    return query, gallery


def embedded(
    model: Backbone,
    variables: Variables,
    data: Folder,
    *,
    image_size: tuple[int, int],
    flip: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    showing: Showing = progress,
) -> Trial:
    """The query and gallery of a dataset folder as a backbone sees them; for the options see `embed.embedder`."""
    sides, found = sides_of(data), []
    for split, records in zip(SPLITS, sides, strict=True):
        with showing(f"embedding {split}", len(records)) as done:
            some = features(
                model,
                variables,
                records.in_order(),
                image_size=image_size,
                flip=flip,
                precision=precision,
                batch=batch,
                done=done,
            )
        found.append(some)
    return Trial(*found, *(np.array(records.index) for records in sides))


def from_features(folder: Path, data: Folder | None = None) -> Trial:
    """What `cion embed` wrote of an evaluation set; if that is named too, it must be the one they were made from."""
    (query, asked), (gallery, searched) = (read_features(folder, split) for split in SPLITS)
    if data is not None:
        for split, records in zip(SPLITS, sides_of(data), strict=True):
            if records.card.fingerprint != fingerprint_of(folder, split):
                raise UserError(f"{folder}: the features of {split} were not made from {data}; embed that again")
    return Trial(query, gallery, asked, searched)


def from_table(path: Path) -> Trial:
    """Anybody's features: an .npz with query (Q, D), query_identity (Q), query_camera (Q), and the same of gallery."""
    arrays = read_arrays(path, [*SPLITS, *(f"{split}_{field}" for split in SPLITS for field in _FIELDS)])
    return Trial(*(arrays[split] for split in SPLITS), *(_labels(path, arrays, split) for split in SPLITS))


def _labels(path: Path, arrays: dict[str, np.ndarray], split: str) -> np.ndarray:
    images = len(arrays[split]) if arrays[split].ndim else 0
    labels = np.full(images * len(FIELDS), -1, np.int32).view(LABELS)
    for field in _FIELDS:
        values = arrays[f"{split}_{field}"]
        if values.shape != (images,) or not np.issubdtype(values.dtype, np.integer):
            raise UserError(
                f"{path}: {split}_{field} is {values.dtype} {values.shape}; an integer for each of {images} is needed"
            )
        labels[field] = values
    return labels
