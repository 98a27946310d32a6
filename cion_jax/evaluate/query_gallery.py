"""Queries and a gallery as features with labels, from a dataset, from `cion embed`, or from anybody's .npz."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.config import Precision
from cion_jax.data.dataset import CARD, is_dataset, read_card
from cion_jax.data.files import Folder
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.evaluate.embed import embed_all
from cion_jax.evaluate.feature_store import fingerprint_of, read_features
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.npz import read_npz
from cion_jax.terminal import ProgressBar, progress_bar

SPLITS = ("query", "gallery")
_FIELDS = ("identity", "camera")


class QueryGallery(NamedTuple):
    """Features and labels with a row for each image; labels have the fields `identity` and `camera`."""

    query: np.ndarray
    gallery: np.ndarray
    query_labels: np.ndarray
    gallery_labels: np.ndarray


def open_query_gallery(data: Folder) -> tuple[Records, Records]:
    """The query and the gallery of a dataset folder."""
    if not is_dataset(data):
        raise UserError(f"{data}: no dataset folder ({CARD} is missing); evaluation sets come from `cion data import`")
    if missing := [split for split in SPLITS if split not in read_card(data)[0]]:
        raise UserError(f"{data}: has no {' and no '.join(missing)}; name an evaluation set, or a drawn world")
    query, gallery = (Records(data, split) for split in SPLITS)
    return query, gallery


def embed_query_gallery(
    model: Network,
    variables: Variables,
    data: Folder,
    *,
    image_size: tuple[int, int],
    flip: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    bar: ProgressBar = progress_bar,
) -> QueryGallery:
    """Embed the query and the gallery of a dataset folder; `embed.embedder` explains the options."""
    sides = open_query_gallery(data)
    features = []
    for split, records in zip(SPLITS, sides, strict=True):
        with bar(f"embedding {split}", len(records)) as progress:
            rows = embed_all(
                model,
                variables,
                records.in_order(),
                image_size=image_size,
                flip=flip,
                precision=precision,
                batch=batch,
                progress=progress,
            )
        features.append(rows)
    return QueryGallery(*features, *(np.array(records.index) for records in sides))


def load_features(folder: Path, data: Folder | None = None) -> QueryGallery:
    """What `cion embed` wrote of an evaluation set. With `data`: refuse features that were not made from it."""
    query, query_labels = read_features(folder, "query")
    gallery, gallery_labels = read_features(folder, "gallery")
    if data is not None:
        for split, records in zip(SPLITS, open_query_gallery(data), strict=True):
            if records.card.fingerprint != fingerprint_of(folder, split):
                raise UserError(f"{folder}: the features of {split} were not made from {data}; embed that again")
    return QueryGallery(query, gallery, query_labels, gallery_labels)


def load_npz(path: Path) -> QueryGallery:
    """Anybody's features: an .npz with query (Q, D), query_identity (Q), query_camera (Q), and the same of gallery."""
    needed = [*SPLITS, *(f"{split}_{field}" for split in SPLITS for field in _FIELDS)]
    arrays = read_npz(path, needed, expected="an .npz or a folder that `cion embed` wrote")
    return QueryGallery(*(arrays[split] for split in SPLITS), *(_labels(path, arrays, split) for split in SPLITS))


def _labels(path: Path, arrays: dict[str, np.ndarray], split: str) -> np.ndarray:
    """The labels of a split of an .npz; fields that it does not have are -1."""
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
