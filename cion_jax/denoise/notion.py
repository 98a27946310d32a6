"""What noise is: members far from their identity's centroid, and identities that are near each other.

Distances are 1 - a.b of unit vectors, and an identity's centroid is the normalised mean of its members.
"""

from typing import NamedTuple

import numpy as np

from cion_jax.denoise.near import near


class Noise(NamedTuple):
    """What a labelling has of each kind."""

    images: int
    """Images that have an identity."""
    identities: int
    inconsistent: int
    """Images farther than sigma from their centroid."""
    close: int
    """Pairs of identities, within a range, whose centroids are nearer than tau."""


def noise(features: np.ndarray, labels: np.ndarray, sigma: float, tau: float, within: int | None = None) -> Noise:
    """Count the noise in a labelling of unit vectors.

    Args:
        features: (N, D).
        labels: (N,) identities, -1 for none.
        sigma: Largest distance of a member from the centroid.
        tau: Smallest distance between centroids.
        within: Only pairs that stand within so many identities in a row count, in the order of their labels.
    """
    names, member, centers = centroids(features, labels)
    inconsistent = distances(features[labels >= 0], centers[member]) > sigma
    pairs = near(centers, windows(len(names), within), tau)
    close = distances(centers[pairs[:, 0]], centers[pairs[:, 1]]) < tau
    return Noise(len(member), len(names), int(inconsistent.sum()), int(close.sum()))


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - a.b, row by row, in float64."""
    return 1 - np.einsum("nd,nd->n", one, other, dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors, along the last axis, at length 1; one of length 0 stays as it is, as far from all as can be told."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def centroids(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The identities, which of them each labelled image belongs to, and their centroids in float64."""
    labelled = np.flatnonzero(labels >= 0)
    names, member = np.unique(labels[labelled], return_inverse=True)
    order = np.argsort(member, kind="stable")
    bounds = np.searchsorted(member[order], np.arange(len(names) + 1))
    sums = np.empty((len(names), features.shape[1]))
    for first in range(0, len(names), 4096):  # a sorted copy of all features would double the memory
        some = bounds[first : first + 4097]
        rows = features[labelled[order[some[0] : some[-1]]]]
        sums[first : first + 4096] = np.add.reduceat(rows, some[:-1] - some[0], dtype=np.float64)
    return names, member, unit(sums)


def windows(count: int, within: int | None) -> np.ndarray:
    """Where the range ends that begins with each identity."""
    return np.minimum(np.arange(count) + (within or count), count)
