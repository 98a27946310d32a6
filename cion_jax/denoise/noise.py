"""The noise in a labelling: images far from the centroid of their tracklet, and identities near each other."""

from typing import NamedTuple

import numpy as np

from cion_jax.denoise.near import near
from cion_jax.denoise.vectors import ROUNDING, distances, in_parts, sums, unit


class Noise(NamedTuple):
    """How much of each kind a labelling has."""

    images: int
    """Images that have an identity."""
    identities: int
    """How many there are."""
    inconsistent: int
    """Images farther than sigma from the centroid of each tracklet of their identity."""
    close: int
    """Pairs of identities, within a range, that are less than tau apart on average."""


class Members(NamedTuple):
    """The images of tracklets, tracklet by tracklet."""

    names: np.ndarray
    """(T,) the numbers of the tracklets that have images, rising."""
    sums: np.ndarray
    """(T, D) the sums of their images' vectors, float64."""
    images: np.ndarray
    """(M,) the images."""
    row: np.ndarray
    """(M,) which row of `names` each of them belongs to."""
    distance: np.ndarray
    """(M,) of each image from the centroid of its tracklet."""

    @property
    def centroids(self) -> np.ndarray:
        """(T, D) the normalised means of the tracklets."""
        return unit(self.sums)

    @property
    def bounds(self) -> np.ndarray:
        """(T + 1,) where each tracklet's images begin, and behind them M."""
        return np.searchsorted(self.row, np.arange(len(self.names) + 1))


def members(features_NxD: np.ndarray, labels_N: np.ndarray) -> Members:
    """The images of each label (-1: none) of unit vectors, and how far they are from its centroid."""
    images = np.flatnonzero(labels_N >= 0)
    images = images[np.argsort(labels_N[images], kind="stable")]
    first = np.diff(labels_N[images], prepend=-1) > 0
    names = labels_N[images[first]]
    row = np.cumsum(first) - 1
    bounds = np.append(np.flatnonzero(first), len(images))
    totals = np.empty((len(names), features_NxD.shape[1]))
    distance = np.empty(len(images))

    def measure(some: slice) -> None:
        rows = slice(bounds[some.start], bounds[some.stop])
        part = features_NxD[images[rows]].astype(np.float64)
        totals[some] = sums(part, bounds[some.start : some.stop + 1] - bounds[some.start])
        distance[rows] = distances(part, unit(totals[some])[row[rows] - some.start])

    in_parts(measure, bounds, features_NxD.shape[1])
    return Members(names, totals, images, row, distance)


def noise(
    distance: np.ndarray, means_CxD: np.ndarray, sigma: float, tau: float, within: int | None = None
) -> tuple[Noise, np.ndarray]:
    """Count the noise in a labelling; also the close pairs (pairs, 2), as rows of the means.

    Args:
        distance: Of each image that has an identity, from the nearest centroid that it may belong to.
        means_CxD: For each identity the mean of its tracklets' unit vectors.
        sigma: Largest distance of an image.
        tau: Smallest average distance between the tracklets of two identities, which is 1 - the product of the means.
        within: Only pairs that stand within so many identities in a row count.
    """
    pairs = near(means_CxD, windows(len(means_CxD), within), tau)
    pairs = pairs[distances(means_CxD[pairs[:, 0]], means_CxD[pairs[:, 1]]) < tau - ROUNDING]
    inconsistent = np.count_nonzero(distance > sigma + ROUNDING)
    return Noise(len(distance), len(means_CxD), int(inconsistent), len(pairs)), pairs


def windows(count: int, within: int | None) -> np.ndarray:
    """Where the range ends that begins with each identity."""
    return np.minimum(np.arange(count) + (within or count), count)
