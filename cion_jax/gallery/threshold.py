"""A threshold for matches, from pairs of people who are known to be two: tracklets that share a frame of one video.

A query matches an answer that is nearer than the threshold. A false match is one with somebody else's images, and its
rate is estimated on the gallery itself: images of one tracklet ask, images of the other answer, as tracklet or person
if answers are such. Each pair of tracklets counts once, however many images it has:

    rate(t) = mean over pairs of tracklets of the share of their comparisons with a distance below t

The threshold is the largest t that keeps the rate asked for. Pairs with a tracklet in common are not independent. So
the variance of the rate is the dyadic one, of pairs (i, j) with deviations e_ij from the mean:

    variance = (sum over i of (sum over j of e_ij)^2 - sum over pairs of e_ij^2) / pairs^2

and the interval is that of Clopper and Pearson for the number of independent pairs that would have this variance, as
Korn and Graubard do it for samples in clusters. Both mistakes that can be in such pairs make the threshold smaller: a
tracker that follows one person twice, and people of one video, who look more alike than strangers of two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from cion_jax.errors import UserError
from cion_jax.gallery.rows import By, group_numbers
from cion_jax.gallery.store import Gallery

#: Pairs of tracklets that are compared, and images of each that ask, at the most.
PAIRS = 2000
ASKING = 16
#: Frames in which pairs are sought, at the most.
FRAMES = 1 << 14
#: The interval holds the rate in this share of cases.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Threshold:
    """A distance below which an answer is a match, and how sure its false match rate is."""

    distance: float
    rate: float
    """The false match rate at this distance, at most the one that was asked for."""
    low: float
    """The interval of 95 % of the rate."""
    high: float
    pairs: int
    """Pairs of tracklets that share a frame."""
    tracklets: int
    """Tracklets in them."""
    comparisons: int
    """Distances that were looked at."""


def choose_threshold(gallery: Gallery, false_match_rate: float = 0.001, by: By = "image") -> Threshold | None:
    """The largest threshold at which a false match rate is kept; None where no two tracklets share a frame.

    Args:
        gallery: Images with video, tracklet and frame.
        false_match_rate: The share of comparisons with somebody else that may match.
        by: What answers are, see `search`: the more images an answer has, the nearer comes the nearest of them.
    """
    if not 0 < false_match_rate < 1:
        raise UserError(f"false match rate {false_match_rate}: must be between 0 and 1; 0.001 is common")
    pairs = different_pairs(gallery.rows)
    distances = [*_comparisons(gallery, pairs, by)]
    asked = [pair for pair, own in zip(pairs, distances, strict=True) if len(own)]
    distances = [own for own in distances if len(own)]
    if not distances:
        return None
    every = np.concatenate(distances)
    weight = np.concatenate([np.full(len(own), 1 / len(own) / len(distances)) for own in distances])
    order = np.argsort(every)
    # rate(t) counts what is below t: with t the first distance that is one too many, the rate is still kept.
    reached = np.cumsum(weight[order])
    first_beyond = min(int(np.searchsorted(reached, false_match_rate * (1 + 1e-9), side="right")), len(every) - 1)
    distance = float(every[order[first_beyond]])
    share = np.array([np.mean(own < distance) for own in distances])
    rate, low, high = rate_with_interval(share, np.array(asked))
    tracklets = len(np.unique(np.array(asked)))
    return Threshold(distance, rate, low, high, len(asked), tracklets, len(every))


def different_pairs(rows: np.ndarray) -> np.ndarray:
    """(P, 2) tracklets that share a frame of a video; at most PAIRS of them, drawn from a seed."""
    known = np.flatnonzero((rows["tracklet"] >= 0) & (rows["video"] >= 0) & (rows["frame"] >= 0))
    seen = np.unique(np.stack([rows[name][known] for name in ("video", "frame", "tracklet")], axis=1), axis=0)
    is_first = np.ones(len(seen), bool)
    is_first[1:] = (seen[1:, :2] != seen[:-1, :2]).any(axis=1)
    bounds = np.append(np.flatnonzero(is_first), len(seen))
    shared = np.flatnonzero(np.diff(bounds) > 1)
    random = np.random.default_rng(0)
    if len(shared) > FRAMES:
        shared = np.sort(random.choice(shared, FRAMES, replace=False))
    found = {pair for frame in shared for pair in _pairs_of(seen[bounds[frame] : bounds[frame + 1], 2].tolist())}
    pairs = np.array(sorted(found), np.int64).reshape(-1, 2)
    return pairs if len(pairs) <= PAIRS else pairs[np.sort(random.choice(len(pairs), PAIRS, replace=False))]


def rate_with_interval(share: np.ndarray, pairs: np.ndarray) -> tuple[float, float, float]:
    """A mean of shares, one for each pair of tracklets (P, 2), and its interval at CONFIDENCE."""
    rate = float(share.mean())
    deviation = share - rate
    _, ends = np.unique(pairs, return_inverse=True)
    of_tracklet = np.bincount(ends.ravel(), np.repeat(deviation, 2))
    variance = max(float((of_tracklet**2).sum() - (deviation**2).sum()), float((deviation**2).sum())) / len(share) ** 2
    disjoint = (ends.max() + 1) / 2  # so many pairs certainly have no tracklet in common
    count = min(rate * (1 - rate) / variance, len(share)) if variance > 0 else disjoint
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, rate * count, count - rate * count + 1)) if rate > 0 else 0.0
    high = float(beta.ppf(1 - tail, rate * count + 1, count - rate * count)) if rate < 1 else 1.0
    return rate, low, high


def _pairs_of(tracklets: list[int]) -> Iterator[tuple[int, int]]:
    for place, one in enumerate(tracklets):
        for other in tracklets[place + 1 :]:
            yield one, other


def _comparisons(gallery: Gallery, pairs: np.ndarray, by: By) -> Iterator[np.ndarray]:
    """The distances of the images of both tracklets of a pair from answers that hold the other.

    Of pairs that a labelling calls one person there are none, if answers are people.
    """
    group = group_numbers(gallery.rows, by)
    in_group = _Members(group)
    in_tracklet = _Members(gallery.rows["tracklet"])
    for pair in pairs.tolist():
        distances = [np.empty(0, np.float32)]
        for one, other in (pair, pair[::-1])[: 1 if by == "image" else 2]:
            asking = in_tracklet.of(one, ASKING)
            answering = in_tracklet.of(other, ASKING)
            if by != "image":
                answering = in_group.of(int(group[answering[0]]))
            if by == "image" or not np.isin(asking, answering).any():
                distance_AxB = 1 - _unit(gallery.features[asking]) @ _unit(gallery.features[answering]).T
                distances.append(distance_AxB.ravel() if by == "image" else distance_AxB.min(axis=1))
        yield np.concatenate(distances)


class _Members:
    """Which rows have a number."""

    def __init__(self, numbers: np.ndarray):
        self.order = np.argsort(numbers, kind="stable")
        self.sorted = numbers[self.order]

    def of(self, number: int, most: int | None = None) -> np.ndarray:
        """The rows with this number, or so many of them, evenly spread."""
        begin, end = np.searchsorted(self.sorted, [number, number + 1])
        own = self.order[begin:end]
        return own if most is None else own[np.unique(np.linspace(0, len(own) - 1, most, dtype=int))]


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
