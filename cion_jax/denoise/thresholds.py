"""sigma and tau from the data: how far apart are people who are known to be two?

Tracklets that share a frame are two people. Without frames, tracklets of the same video stand in for them, and where
each video has but one, any two tracklets: nearly all such pairs are two people, and what is estimated from them comes
from quantiles that the few others hardly move.

    sigma    if two such tracklets were taken for one, its farthest member would lie beyond sigma 9 times in 10
    tau      three deviations below the median distance between their centroids; the deviation is that of the half
             above the median, where neither fragments of one walk nor look-alikes are
"""

from typing import NamedTuple

import numpy as np

from cion_jax.denoise.notion import distances, unit
from cion_jax.denoise.sightings import UNKNOWN, Sightings

#: Pairs that are looked at, at the most.
PAIRS = 1 << 13
#: Share of the pairs that sigma may fail to tell apart, and deviations between two people and tau.
UNNOTICED, DEVIATIONS = 0.1, 3.0
#: Where all images are alike, distances are rounding.
LEAST = 1e-4


class Thresholds(NamedTuple):
    """The two distances of the noise notion."""

    sigma: float
    """Largest distance of a member from its centroid."""
    tau: float
    """Smallest distance between two centroids."""


def estimate(sightings: Sightings) -> Thresholds:
    """sigma and tau from pairs of tracklets that are two people; both are 1 where there is but one, which is kept."""
    bounds = sightings.bounds
    pairs = two_people(sightings, bounds[:-1])
    if not len(pairs):
        return Thresholds(1.0, 1.0)
    centers = unit(np.add.reduceat(sightings.features, bounds[:-1], dtype=np.float64))
    one, other = centers[pairs[:, 0]], centers[pairs[:, 1]]
    apart = distances(one, other)
    farthest = [
        max(1 - (sightings.features[bounds[each] : bounds[each + 1]] @ middle).min() for each in pair)
        for pair, middle in zip(pairs.tolist(), unit(one + other), strict=True)
    ]
    median, high = np.quantile(apart, [0.5, 0.841])
    sigma, tau = np.quantile(farthest, UNNOTICED), median - DEVIATIONS * (high - median)
    return Thresholds(max(float(sigma), LEAST), max(float(tau), LEAST))


def two_people(sightings: Sightings, starts: np.ndarray) -> np.ndarray:
    """Pairs of tracklets that are two people, as well as can be known: (pairs, 2), none twice, in order."""
    random = np.random.default_rng(0)
    pairs = _in_a_frame(sightings)
    video = sightings.video[starts]
    if not len(pairs):
        pairs = _neighbours(random, np.searchsorted(video, video), np.searchsorted(video, video, side="right"))
    if not len(pairs):
        pairs = _neighbours(random, np.zeros_like(video), np.full_like(video, len(video)))
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    some = random.permutation(len(pairs))[:PAIRS]
    return pairs[np.sort(some)]


def _in_a_frame(sightings: Sightings) -> np.ndarray:
    """Tracklets that are next to each other in some moment."""
    known = np.flatnonzero(sightings.moment != UNKNOWN)
    order = known[np.argsort(sightings.moment[known], kind="stable")]
    one, other = order[:-1], order[1:]
    tracklet, moment = sightings.tracklet, sightings.moment
    two = (moment[one] == moment[other]) & (tracklet[one] != tracklet[other])
    return np.unique(np.stack([tracklet[one[two]], tracklet[other[two]]], axis=1), axis=0)


def _neighbours(random: np.random.Generator, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Random tracklets, each with another one from its span."""
    one = random.integers(len(first), size=PAIRS)
    other = random.integers(first[one], end[one])
    return np.stack([one, other], axis=1)[one != other]
