"""sigma and tau from the data, and whether the data carry a link at all.

sigma    four standard deviations above the median distance of an image from the centroid of the other images of its
         tracklet; the deviation is that of the quarter below the median, as a bell has it, for above it a tracker's
         mistakes are among the images. Where images of one person scatter so widely that this is farther than nearly
         anything, next to nothing is dropped.

tau      is found by a false discovery rate. Two people of one frame are certainly two: their distances say how often
         strangers come near. The fifth that is nearest falls off as an exponential, which is carried on towards 0:

             by_chance(d) = N / 5 exp(-(q20 - d) / s),    s = (q20 - q5) / log 4

         with N pairs of tracklets that may be one person, and q5, q20 the quantiles of strangers' distances. Links
         below the largest distance at which no more than one in twenty is by chance are trusted, if they are at least
         8 sqrt(k): pairs of k tracklets come in bunches, since two people who look alike bring many. tau is where nine
         in ten of those links are found, not farther out than need be.

A tracker that changes over from one person to another leaves two tracklets that are alike and share frames. So the
distance of two that share frames is the larger of two: that of their centroids, and that of their images frame by
frame, which no change of the tracker makes smaller. Where nobody shares a frame, any two tracklets of a video stand in
for strangers. Of the spaces in which tracklets can be compared, that with the most right links at this rate is taken.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from cion_jax.denoise.inputs import UNKNOWN, Tracklets
from cion_jax.denoise.noise import Members
from cion_jax.denoise.prepare import Space, in_space
from cion_jax.denoise.vectors import TOGETHER

#: Standard deviations above the median that an image may be away.
DEVIATIONS = 4.0
#: Standard deviations of a bell from its median beyond which a quarter lies.
QUARTER = 0.6745
#: Share of links that may be by chance.
FALSE_SHARE = 0.05
#: Links that k tracklets must have at least, as a multiple of sqrt(k).
BUNCHES = 8.0
#: Share of the trusted links that tau finds.
FOUND = 0.9
#: Fewer pairs of strangers say nothing.
FEW = 50
#: Distances between tracklets, and pairs of strangers, that are looked at, at the most.
CELLS, STRANGERS = 1 << 23, 1 << 12
#: Steps of tau up to q20.
STEPS = 400
#: Where all images are alike, distances are rounding.
LEAST = 1e-4
#: The largest distance that there is.
FARTHEST = 2.0


def estimate_sigma(found: Members) -> float:
    """sigma, from the images of raw tracklets; FARTHEST where no tracklet has two images."""
    size_M = np.diff(found.bounds)[found.row]
    length_M = np.linalg.norm(found.sums, axis=1)[found.row]
    along_M = (1 - found.distance) * length_M  # f.S, with S the sum of the tracklet
    rest_M = np.sqrt(np.maximum(length_M**2 - 2 * along_M + 1, LEAST**2))  # |S - f|
    apart = (1 - (along_M - 1) / rest_M)[size_M > 1]
    if not len(apart):
        return FARTHEST
    low, median = np.quantile(apart, [0.25, 0.5]).tolist()
    return min(max(median + DEVIATIONS * (median - low) / QUARTER, LEAST), FARTHEST)


class Evidence(NamedTuple):
    """How many pairs of tracklets are near, and how many would be by chance, in one space."""

    space: Space
    steps: np.ndarray
    """(S,) distances, rising."""
    near: np.ndarray
    """(S,) pairs of tracklets that may be one person and are nearer than each step."""
    by_chance: np.ndarray
    """(S,) how many of them would be if all were strangers."""
    tau: float
    """0 where the data carry no link."""
    links: float
    """Pairs that are trusted."""
    false: float
    """How many of those are by chance."""


def weigh(tracklets: Tracklets, found: Members, some: Iterable[Space]) -> Evidence | None:
    """The evidence in the space that has the most right links; None where there are too few strangers to tell.

    Args:
        tracklets: Where images were seen; their features as prepared.
        found: The images that tracklets have kept.
        some: The spaces to choose from; of equals the first.
    """
    pairs = _pairs(tracklets, found)
    weighed = [evidence for space in some if (evidence := _weigh_one(tracklets, found, pairs, space)) is not None]
    return max(weighed, key=lambda evidence: evidence.links - evidence.false, default=None)


class _Pairs(NamedTuple):
    """Pairs of tracklets that are looked at."""

    rows: np.ndarray
    """(R,) the tracklets whose pairs with all others are looked at."""
    may_link: np.ndarray
    """(R, T) bool: two tracklets that share no frame."""
    strangers: np.ndarray
    """(P, 2) pairs that share a frame, or where they are few pairs of a video."""
    share_frames: bool
    """Whether the strangers share frames."""


def _pairs(tracklets: Tracklets, found: Members) -> _Pairs:
    random = np.random.default_rng(0)
    count = len(found.names)
    rows = np.sort(random.permutation(count)[: max(1, CELLS // count)])
    sharing_RxT = _sharing(tracklets, found, rows)
    strangers = _once(rows, sharing_RxT)
    share_frames = len(strangers) >= FEW
    if not share_frames:
        videos = tracklets.videos[found.names]
        strangers = _once(rows, videos[rows, None] == videos)
    may_link = ~sharing_RxT & (rows[:, None] != np.arange(count))
    return _Pairs(rows, may_link, random.permutation(strangers)[:STRANGERS], share_frames)


def _once(rows: np.ndarray, chosen_RxT: np.ndarray) -> np.ndarray:
    """The pairs (P, 2) of two tracklets that are chosen, each once, in order."""
    row, other = np.nonzero(chosen_RxT)
    pairs = np.sort(np.stack([rows[row], other], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def frames_seen(tracklets: Tracklets, found: Members) -> csr_array:
    """(T, moments) how many images of each tracklet are of each moment."""
    moment = tracklets.moment[found.images]
    known = moment != UNKNOWN
    shape = len(found.names), int(moment.max(initial=0)) + 1
    return csr_array((np.ones(known.sum(), np.int32), (found.row[known], moment[known])), shape=shape)


def _sharing(tracklets: Tracklets, found: Members, rows: np.ndarray) -> np.ndarray:
    """(R, T) whether a tracklet shares a frame with another one."""
    seen = frames_seen(tracklets, found)
    shared = (seen[rows] @ seen.T).toarray() > 0
    shared[np.arange(len(rows)), rows] = False  # with itself
    return shared


def _weigh_one(tracklets: Tracklets, found: Members, pairs: _Pairs, space: Space) -> Evidence | None:
    centers_TxD = in_space(space, found).astype(np.float32)
    distance_RxT = 1 - centers_TxD[pairs.rows] @ centers_TxD.T
    strangers = 1 - np.einsum("pd,pd->p", *(centers_TxD[side] for side in pairs.strangers.T))
    if len(strangers) < FEW:
        return None
    if pairs.share_frames:
        strangers = np.maximum(strangers, _frame_by_frame(tracklets, found, pairs.strangers, space))
    q5, q20 = np.quantile(strangers, [0.05, 0.2]).tolist()
    if not 0 < q5 < q20:
        return None
    each = len(found.names) / len(pairs.rows) / 2  # pairs that a cell stands for
    distances = np.sort(distance_RxT[pairs.may_link])
    steps = np.linspace(0, q20, STEPS + 1)[1:]
    near = each * np.searchsorted(distances, steps)
    by_chance = each * len(distances) / 5 * np.exp((steps - q20) * math.log(4) / (q20 - q5))
    trusted = (by_chance <= FALSE_SHARE * near) & (near >= BUNCHES * math.sqrt(len(found.names)))
    if not trusted.any():
        return Evidence(space, steps, near, by_chance, 0.0, 0.0, 0.0)
    last = np.flatnonzero(trusted)[-1]
    first = np.flatnonzero(near >= FOUND * near[last])[0]
    return Evidence(space, steps, near, by_chance, float(steps[first]), float(near[last]), float(by_chance[last]))


def _frame_by_frame(tracklets: Tracklets, found: Members, pairs: np.ndarray, space: Space) -> np.ndarray:
    """The distance of each pair of tracklets (P, 2) that share frames, by their images of the same frames.

    With a_t, b_t the images of frame t and A, B the means of both tracklets: 1 - mean_t(a_t.b_t) / (|A| |B|).
    """
    bounds = found.bounds
    moment = tracklets.moment[found.images]
    many = int(moment.max()) + 1
    key = np.where(moment == UNKNOWN, -1, found.row * many + moment)  # rises within a tracklet
    order = np.argsort(key, kind="stable")
    one, other = pairs.T
    sizes = bounds[one + 1] - bounds[one]
    pair = np.repeat(np.arange(len(pairs)), sizes)
    here = np.arange(len(pair)) + np.repeat(bounds[one] - np.cumsum(sizes) + sizes, sizes)
    wanted = np.where(moment[here] == UNKNOWN, -2, other[pair] * many + moment[here])
    place = np.minimum(np.searchsorted(key[order], wanted), len(order) - 1)
    there = order[place]
    met = np.flatnonzero(key[there] == wanted)
    product = np.empty(len(met))
    at_once = TOGETHER // tracklets.features.shape[1] + 1
    for first in range(0, len(met), at_once):
        some = met[first : first + at_once]
        a, b = (space(tracklets.features[found.images[side[some]]]) for side in (here, there))
        product[first : first + at_once] = np.einsum("nd,nd->n", a, b)
    mean = np.bincount(pair[met], product, len(pairs)) / np.bincount(pair[met], minlength=len(pairs))
    length = np.linalg.norm(space(found.sums / np.diff(bounds)[:, None]), axis=1)
    return 1 - mean / np.maximum(length[one] * length[other], LEAST**2)
