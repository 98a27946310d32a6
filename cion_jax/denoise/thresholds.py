"""sigma and tau from the data: how far from each other are two people, and how far two sightings of one?

Nearly all pairs of tracklets are two people, and their distances lie as those of random directions do, in as many
dimensions as fit. Tracklets of different videos that are nearer than so many would be by chance are one person seen
twice.

    tau     a deviation above the usual distance of one person's tracklets in two videos, for groups come nearer as they
            grow; but in a video no more than one tracklet in twenty may meet another person nearer than that by chance
    sigma   two deviations above the median distance of an image from its person, of whom it was no part: with c the
            centroid of the image's tracklet and o that of another of the same person, 1 - image.o / sqrt(c.o)

The usual distance is the middle of the shortest half of all, and its deviation that below it: above are look-alikes.
The deviation of images is the larger of that below the median and that of the quarter above it; what is farther may be
the tracker's mistakes. In a video, two people are nearer than elsewhere, for they share its light. Tracklets that
share a frame are known to be two; without frames, any two of a video stand in for them. Where nobody is seen twice, tau
is where one tracklet in twenty meets somebody else by chance, and an image's distance is that from its own tracklet.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betainc

from cion_jax.denoise.notion import distances
from cion_jax.denoise.sightings import UNKNOWN, Sightings

#: Distances between tracklets that are looked at, and images of one person, at the most.
CELLS, PAIRS = 1 << 23, 1 << 12
#: Deviations above the usual.
OF_CENTROIDS, OF_IMAGES = 1.0, 2.0
#: Deviations from the median at which a quarter of a bell is left.
QUARTER = 0.6745
#: Share of mistakes that tau may allow by chance.
CHANCE = 0.05
#: Fewer pairs of tracklets say nothing.
FEW = 20
#: Where all images are alike, distances are rounding.
LEAST = 1e-4


class Thresholds(NamedTuple):
    """The two distances of the noise notion."""

    sigma: float
    """Largest distance of a member from its centroid."""
    tau: float
    """Smallest distance between two centroids."""


def estimate(sightings: Sightings) -> Thresholds:
    """sigma and tau, from up to CELLS distances between tracklets; the same for any order of the images."""
    bounds, random = sightings.bounds, np.random.default_rng(0)
    centers = sightings.raw.centers.astype(np.float32)
    video = sightings.video[bounds[:-1]]
    rows = np.sort(random.permutation(len(centers))[: max(1, CELLS // len(centers))])
    apart = 1 - centers[rows] @ centers.T
    same_video = video[rows, None] == video
    here = apart[same_video & (rows[:, None] != np.arange(len(centers)))]
    one, other = in_a_frame(sightings).T
    two = distances(centers[one], centers[other]) if len(one) else here
    tau, pairs = _seen_twice(apart, ~same_video)
    one, other = (rows[pairs[:, 0]], pairs[:, 1]) if len(pairs) else (rows, rows)
    images = [
        1 - sightings.features[bounds[a] : bounds[a + 1]] @ centers[b] / _length(centers[a] @ centers[b])
        for a, b in random.permutation(np.stack([one, other], axis=1))[:PAIRS].tolist()
    ]
    low, median, high = np.quantile(np.concatenate(images), [0.159, 0.5, 0.75]).tolist()
    sigma = median + OF_IMAGES * max(median - low, (high - median) / QUARTER)
    return Thresholds(max(sigma, LEAST), max(min(tau, _rare(two, len(here) / len(rows))), LEAST))


def _seen_twice(apart: np.ndarray, elsewhere: np.ndarray) -> tuple[float, np.ndarray]:
    """The tau that fits people who are seen in two videos, and pairs (row, column) nearer than that; or no pairs."""
    two = apart[elsewhere]
    if not len(two):
        return math.inf, np.empty((0, 2), int)
    steps, chance = _chance(two)
    steps, chance = steps[chance <= CHANCE], chance[chance <= CHANCE]
    found = np.searchsorted(np.sort(two[two <= steps[-1:]]), steps)
    clear = np.flatnonzero((chance * len(two) <= CHANCE * found) & (found >= FEW))
    if not len(clear):
        return _rare(two, len(two) / len(apart)), np.empty((0, 2), int)
    near = np.sort(two[two < steps[clear[-1]]])
    half = len(near) // 2
    shortest = np.argmin(near[half:] - near[: len(near) - half])
    usual = (near[shortest] + near[shortest + half]) / 2
    tau = float(usual + OF_CENTROIDS * max(usual - np.quantile(near, 0.159), 0))
    return tau, np.argwhere((apart < tau) & elsewhere)


def _rare(two: np.ndarray, others: float) -> float:
    """Below which distance a tracklet with so many others seldom meets another person, given distances of two."""
    if not len(two):
        return math.inf
    steps, chance = _chance(two)
    return float(steps[max(int(np.count_nonzero(chance * others <= CHANCE)) - 1, 0)])


def _chance(two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances up to the median, and the probability that two random people are nearer than that.

    The angle of two random directions in n dimensions is that of a beta distribution; n is such that the deviation
    fits, and the middle is not where it is orthogonal but at the median.
    """
    low, median, high = np.quantile(two, [0.25, 0.5, 0.841]).tolist()
    deviation = max(high - median, (median - low) / QUARTER, LEAST)
    dimensions = max((median / deviation) ** 2, 2)
    steps = np.linspace(0, max(median, LEAST), 2001)[1:]
    return steps, betainc((dimensions - 1) / 2, 0.5, 1 - (1 - steps / steps[-1]) ** 2) / 2


def _length(squared: float) -> float:
    return math.sqrt(max(squared, LEAST))


def in_a_frame(sightings: Sightings) -> np.ndarray:
    """Pairs of tracklets that are next to each other in some moment: (pairs, 2), none twice."""
    known = np.flatnonzero(sightings.moment != UNKNOWN)
    order = known[np.argsort(sightings.moment[known], kind="stable")]
    one, other = order[:-1], order[1:]
    tracklet, moment = sightings.tracklet, sightings.moment
    two = (moment[one] == moment[other]) & (tracklet[one] != tracklet[other])
    return np.unique(np.sort(np.stack([tracklet[one[two]], tracklet[other[two]]], axis=1), axis=1), axis=0)
