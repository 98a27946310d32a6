"""A threshold for matches, from images that certainly show two people: those of two tracklets in one frame of a video.

Other images of the two tracklets are not compared: where the tracker changed over from one person to the other, they
show the same one. Each pair of tracklets counts once, in however many frames it is seen:

    rate(t) = mean over pairs of tracklets of the share of their frames in which the two are nearer than t

The threshold is the largest t that keeps the rate asked for. Pairs with a tracklet in common are not independent. So
the variance of the rate is the dyadic one, of pairs (i, j) with deviations e_ij from the mean:

    variance = (sum over i of (sum over j of e_ij)^2 - sum over pairs of e_ij^2) / pairs^2

and the interval is that of Clopper and Pearson for the number of independent pairs that would have this variance, as
Korn and Graubard do it for samples in clusters. A tracker that follows one person twice makes the threshold smaller.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from cion_jax.errors import UserError
from cion_jax.gallery.store import Gallery

#: Frames that are looked at, and pairs of images that are compared, at the most.
FRAMES = 1 << 13
COMPARISONS = 1 << 18
#: Pairs that are compared at a time.
TOGETHER = 1 << 12
#: The interval holds the rate in this share of cases.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Threshold:
    """A distance below which two images match, and how sure its false match rate is."""

    distance: float
    rate: float
    """The share of pairs of images of two people that are nearer: at most the one that was asked for."""
    low: float
    """The interval of the rate."""
    high: float
    comparisons: int
    """Pairs of images that a frame shows."""
    pairs: int
    """Pairs of tracklets that they are of."""
    tracklets: int
    """Tracklets in those."""


def choose_threshold(gallery: Gallery, false_match_rate: float = 0.001) -> Threshold | None:
    """The largest threshold at which a false match rate is kept; None where no two tracklets share a frame.

    Args:
        gallery: Images with video, tracklet and frame.
        false_match_rate: The share of pairs of images of two people that may match.
    """
    if not 0 < false_match_rate < 1:
        raise UserError(f"false match rate {false_match_rate}: must be between 0 and 1; 0.001 is common")
    images = two_people(gallery.rows)
    if not len(images):
        return None
    distance = _distances(gallery.features, images)
    pairs, of_pair, comparisons = np.unique(
        np.sort(gallery.rows["tracklet"][images], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    of_pair = of_pair.ravel()
    order = np.argsort(distance)
    rate_up_to = np.cumsum(1 / comparisons[of_pair[order]] / len(pairs))
    # Below the first distance that is one too many, the rate is kept.
    first_beyond = int(np.searchsorted(rate_up_to, false_match_rate * (1 + 1e-9), side="right"))
    threshold = float(distance[order[min(first_beyond, len(order) - 1)]])
    share = np.bincount(of_pair, distance < threshold) / comparisons
    return Threshold(
        threshold, *rate_with_interval(share, pairs), len(images), len(pairs), len(np.unique(pairs.ravel()))
    )


def two_people(rows: np.ndarray) -> np.ndarray:
    """(C, 2) images of two tracklets that a frame of a video shows; where there are too many, some from a seed."""
    known = np.flatnonzero((rows["tracklet"] >= 0) & (rows["video"] >= 0) & (rows["frame"] >= 0))
    known = known[np.lexsort([rows[name][known] for name in ("tracklet", "frame", "video")])]
    place = np.stack([rows[name][known] for name in ("video", "frame")], axis=1)
    begins = np.flatnonzero(np.append(True, (place[1:] != place[:-1]).any(axis=1))) if len(known) else known
    sizes = np.diff(np.append(begins, len(known)))
    random = np.random.default_rng(0)
    shared = _some(np.flatnonzero(sizes > 1), FRAMES, random)
    found = [np.empty((0, 2), np.int64)]
    for begin, size in zip(begins[shared].tolist(), sizes[shared].tolist(), strict=True):
        found.append(known[begin + np.stack(np.triu_indices(size, 1), axis=1)])
    images = np.concatenate(found)
    one, other = rows["tracklet"][images].T
    return _some(images[one != other], COMPARISONS, random)


def rate_with_interval(share: np.ndarray, pairs: np.ndarray) -> tuple[float, float, float]:
    """A mean of shares, one for each pair of tracklets (P, 2), and its interval at CONFIDENCE."""
    rate = float(share.mean())
    deviation = share - rate
    _, ends = np.unique(pairs, return_inverse=True)
    of_tracklet = np.bincount(ends.ravel(), np.repeat(deviation, 2))
    squares = float((deviation**2).sum())
    variance = max(float((of_tracklet**2).sum()) - squares, squares) / len(share) ** 2
    disjoint = (ends.max() + 1) / 2  # at least so many pairs have no tracklet in common
    count = min(rate * (1 - rate) / variance, len(share)) if variance > 0 else disjoint
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, rate * count, count - rate * count + 1)) if rate > 0 else 0.0
    high = float(beta.ppf(1 - tail, rate * count + 1, count - rate * count)) if rate < 1 else 1.0
    return rate, low, high


def _some(values: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    return values if len(values) <= most else values[np.sort(random.choice(len(values), most, replace=False))]


def _distances(features: np.ndarray, images: np.ndarray) -> np.ndarray:
    """1 - cosine of pairs of images (C, 2)."""
    result = np.empty(len(images), np.float32)
    for start in range(0, len(images), TOGETHER):
        one, other = features[images[start : start + TOGETHER].T].astype(np.float32)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        result[start : start + TOGETHER] = 1 - np.einsum("cd,cd->c", one, other) / lengths
    return result
