"""What noise is: members far from their identity's centroid, and identities that are near each other.

Distances are 1 - a.b of unit vectors, and an identity's centroid is the normalised mean of its members.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from cion_jax.denoise.near import near

#: Numbers of features that are looked at together, by each core.
TOGETHER = 1 << 22
#: Sums in another order differ by less; so much beyond sigma or below tau is none.
ROUNDING = 1e-9


class Noise(NamedTuple):
    """What a labelling has of each kind."""

    images: int
    """Images that have an identity."""
    identities: int
    inconsistent: int
    """Images farther than sigma from their centroid."""
    close: int
    """Pairs of identities, within a range, whose centroids are nearer than tau."""


class Identities(NamedTuple):
    """The identities of a labelling."""

    names: np.ndarray
    """Their labels, in order."""
    sums: np.ndarray
    """The sums of their images' vectors, float64."""
    images: np.ndarray
    """The images that have one, identity by identity."""
    member: np.ndarray
    """Which identity each of those images belongs to."""
    apart: np.ndarray
    """How far each of those images is from its centroid."""

    @property
    def centers(self) -> np.ndarray:
        """Their centroids."""
        return unit(self.sums)


def noise(found: Identities, sigma: float, tau: float, within: int | None = None) -> Noise:
    """Count the noise in a labelling.

    Args:
        found: Who is in it.
        sigma: Largest distance of a member from the centroid.
        tau: Smallest distance between centroids.
        within: Only pairs that stand within so many identities in a row count, in the order of their labels.
    """
    centers = found.centers
    pairs = near(centers, windows(len(centers), within), tau)
    close = distances(centers[pairs[:, 0]], centers[pairs[:, 1]]) < tau
    inconsistent = found.apart > sigma + ROUNDING
    return Noise(len(found.images), len(found.names), int(inconsistent.sum()), int(close.sum()))


def identities(features: np.ndarray, labels: np.ndarray) -> Identities:
    """Who is in a labelling of unit vectors (-1: nobody), and how far their images are from them."""
    images = np.flatnonzero(labels >= 0)
    images = images[np.argsort(labels[images], kind="stable")]
    first = np.diff(labels[images], prepend=-1) > 0
    names, member = labels[images[first]], np.cumsum(first) - 1
    bounds = np.append(np.flatnonzero(first), len(images))
    totals, apart = np.empty((len(names), features.shape[1])), np.empty(len(images))

    def measure(some: slice) -> None:
        rows = slice(bounds[some.start], bounds[some.stop])
        part = features[images[rows]].astype(np.float64)
        totals[some] = sums(part, bounds[some.start : some.stop + 1] - bounds[some.start])
        apart[rows] = distances(part, unit(totals[some])[member[rows] - some.start])

    in_parts(measure, bounds, features.shape[1])
    return Identities(names, totals, images, member, apart)


def in_parts(work: Callable[[slice], None], bounds: np.ndarray, width: int) -> None:
    """Do some work on all groups of rows, some groups at a time, on all cores.

    In float64 a copy of all features would need twice their memory. NumPy lets other threads run while it computes.
    """
    parts, first, rows = [], 0, max(TOGETHER // width, 1)
    while first < len(bounds) - 1:
        end = max(first + 1, int(np.searchsorted(bounds, bounds[first] + rows, side="right")) - 1)
        parts.append(slice(first, end))
        first = end
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        deque(pool.map(work, parts), maxlen=0)


def sums(vectors: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The sum of each run of rows; many times faster than `np.add.reduceat` where runs are short."""
    ones, columns = np.ones(len(vectors)), np.arange(len(vectors))
    return csr_array((ones, columns, bounds), shape=(len(bounds) - 1, len(vectors))) @ vectors


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - a.b, row by row, in float64."""
    return 1 - np.einsum("nd,nd->n", one, other, dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors, along the last axis, at length 1; one of length 0 stays as it is, as far from all as can be told."""
    lengths = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


def windows(count: int, within: int | None) -> np.ndarray:
    """Where the range ends that begins with each identity."""
    return np.minimum(np.arange(count) + (within or count), count)
