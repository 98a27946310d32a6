"""Numbers for names, and the rows of labels that are made of them."""

import re

import numpy as np

from cion_jax.data.labels import LABELS


def natural_ranks(names: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for the different names in sorted order, in which "video2" comes before "video10"."""
    unique, inverse = np.unique(names, return_inverse=True)
    padded = [re.sub("[0-9]+", lambda digits: digits[0].zfill(20), name) for name in unique]
    ranks = np.empty(len(unique), np.int64)
    ranks[sorted(range(len(unique)), key=padded.__getitem__)] = np.arange(len(unique))
    return ranks[inverse]


def dense_ranks(*keys: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for the different rows of numbers in sorted order; the first key counts most."""
    order = np.lexsort(keys[::-1])
    is_new = np.any([np.diff(key[order], prepend=key[order][:1]) != 0 for key in keys], axis=0)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.cumsum(is_new)
    return ranks


def label_rows(
    video: np.ndarray,
    tracklet: np.ndarray,
    frame: np.ndarray,
    camera: np.ndarray | int = -1,
    identity: np.ndarray | int = -1,
) -> np.ndarray:
    """One row of LABELS per image."""
    rows = np.empty(len(video), LABELS)
    for field, values in zip(LABELS.names or (), (video, tracklet, frame, camera, identity), strict=True):
        rows[field] = values
    return rows
