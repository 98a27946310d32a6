"""sigma and tau from the data, and whether the data carry a link at all.

sigma    four standard deviations above the median distance of an image from the centroid of the other images of its
         tracklet. The standard deviation is that of a normal distribution with the same lower quartile: above the
         median a tracker's mistakes are among the images. Where images of one person scatter so widely that nearly
         everything is nearer than this, next to nothing is dropped.

tau      is found by a false discovery rate. Two people of one frame are certainly two: their distances say how often
         strangers come near. Where the mean of a video was taken off, those who are in it together are farther apart
         than strangers of two videos: their distances are moved towards 0 until their median is that of all pairs that
         may be one person, nearly all of which are strangers. The fifth that is nearest falls off as an exponential,
         which is carried on towards 0:

             by_chance(d) = N / 5 exp(-(q20 - d) / s),    s = (q20 - q5) / log 4

         with N pairs of tracklets that may be one person, and q5, q20 the quantiles of strangers' distances. Links
         below the largest distance at which no more than one in twenty is by chance are trusted, if they are at least
         8 sqrt(k): pairs of k tracklets come in bunches, since two people who look alike bring many. tau is where nine
         in ten of those links are found, and no larger.

limit    is where right links outnumber wrong ones by the most: the d at which near(d) - 2 by_chance(d) is largest, with
         near(d) the links below d. What would be added beyond is more likely wrong than right, so a tau that is given
         is cut to it. The tau that is found never lies beyond it.

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
#: Standard deviations from the median to a quartile of a normal distribution.
QUARTER = 0.6745
#: Share of links that may be by chance.
FALSE_SHARE = 0.05
#: Links that k tracklets must have at least, as a multiple of sqrt(k).
BUNCHES = 8.0
#: Share of the trusted links that tau finds.
FOUND = 0.9
#: Fewer pairs of strangers say nothing.
FEW = 50
#: Distances between tracklets that are looked at, at the most.
CELLS = 1 << 23
#: Pairs of strangers that are looked at, at the most.
STRANGERS = 1 << 12
#: Steps of tau up to q20.
STEPS = 400
#: Where all images are alike, distances are rounding.
LEAST = 1e-4
#: The largest distance that there is.
FARTHEST = 2.0


def estimate_sigma(members: Members) -> float:
    """sigma, from the images of raw tracklets; FARTHEST where no tracklet has two images."""
    # With f an image and S the sum of its tracklet, its distance from the others is 1 - f.(S - f) / |S - f|.
    size_M = np.diff(members.bounds)[members.row]
    norm_M = np.linalg.norm(members.sums, axis=1)[members.row]  # |S|
    dot_M = (1 - members.distance) * norm_M  # f.S
    norm_others_M = np.sqrt(np.maximum(norm_M**2 - 2 * dot_M + 1, LEAST**2))  # |S - f|
    distance = (1 - (dot_M - 1) / norm_others_M)[size_M > 1]
    if not len(distance):
        return FARTHEST
    quartile, median = np.quantile(distance, [0.25, 0.5]).tolist()
    deviation = (median - quartile) / QUARTER
    return min(max(median + DEVIATIONS * deviation, LEAST), FARTHEST)


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

    @property
    def limit(self) -> float:
        """The distance beyond which links are more likely wrong than right; 0 where they are at any distance."""
        # Of the links below each step, near - by_chance are right and by_chance are wrong.
        surplus = self.near - 2 * self.by_chance
        best = int(np.argmax(surplus))
        return float(self.steps[best]) if surplus[best] > 0 else 0.0


def estimate_tau(tracklets: Tracklets, members: Members, spaces: Iterable[Space]) -> Evidence | None:
    """tau, with the space that has the most right links; None where there are too few strangers to tell.

    Args:
        tracklets: Where images were seen; their features as prepared.
        members: The images that tracklets have kept.
        spaces: The spaces to choose from; of equals the first.
    """
    pairs = sample_pairs(tracklets, members)
    each = [_evidence_in(space, tracklets, members, pairs) for space in spaces]
    known = [evidence for evidence in each if evidence is not None]
    return max(known, key=lambda evidence: evidence.links - evidence.false, default=None)


class Pairs(NamedTuple):
    """Pairs of tracklets that are looked at."""

    rows: np.ndarray
    """(R,) the tracklets whose pairs with all others are looked at."""
    may_link: np.ndarray
    """(R, T) bool: two tracklets that share no frame."""
    strangers: np.ndarray
    """(P, 2) pairs that share a frame, or where they are few pairs of a video."""
    share_frames: bool
    """Whether the strangers share frames."""


def sample_pairs(tracklets: Tracklets, members: Members) -> Pairs:
    """The pairs by which spaces are judged: at most `CELLS` that may link, and at most `STRANGERS` of strangers."""
    random = np.random.default_rng(0)
    count = len(members.names)
    rows = np.sort(random.permutation(count)[: max(1, CELLS // count)])
    sharing_RxT = _sharing(tracklets, members, rows)
    strangers = _once(rows, sharing_RxT)
    share_frames = len(strangers) >= FEW
    if not share_frames:  # any two tracklets of a video stand in for them
        videos = tracklets.videos[members.names]
        strangers = _once(rows, videos[rows, None] == videos)
    may_link = ~sharing_RxT & (rows[:, None] != np.arange(count))
    return Pairs(rows, may_link, random.permutation(strangers)[:STRANGERS], share_frames)


def _once(rows: np.ndarray, chosen_RxT: np.ndarray) -> np.ndarray:
    """The pairs (P, 2) of two tracklets that are chosen, each once, in order."""
    row, other = np.nonzero(chosen_RxT)
    pairs = np.sort(np.stack([rows[row], other], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def frames_seen(tracklets: Tracklets, members: Members) -> csr_array:
    """(T, frame keys) how many images of each tracklet are of each frame."""
    frame_key = tracklets.frame_key[members.images]
    known = frame_key != UNKNOWN
    shape = len(members.names), int(frame_key.max(initial=0)) + 1
    return csr_array((np.ones(known.sum(), np.int32), (members.row[known], frame_key[known])), shape=shape)


def _sharing(tracklets: Tracklets, members: Members, rows: np.ndarray) -> np.ndarray:
    """(R, T) whether a tracklet shares a frame with another one."""
    seen = frames_seen(tracklets, members)
    shared = (seen[rows] @ seen.T).toarray() > 0
    shared[np.arange(len(rows)), rows] = False  # with itself
    return shared


def _evidence_in(space: Space, tracklets: Tracklets, members: Members, pairs: Pairs) -> Evidence | None:
    """What one space shows; None where there are too few strangers, or they are all alike, or nobody may be linked."""
    # Distances in this space: of the pairs that may link, and of strangers.
    centers_TxD = in_space(space, members).astype(np.float32)
    distance_RxT = 1 - centers_TxD[pairs.rows] @ centers_TxD.T
    strangers = 1 - np.einsum("pd,pd->p", *(centers_TxD[side] for side in pairs.strangers.T))
    distances = np.sort(distance_RxT[pairs.may_link])
    if len(strangers) < FEW or not len(distances):
        return None
    if pairs.share_frames:
        strangers = np.maximum(strangers, frame_by_frame(tracklets, members, pairs.strangers, space))
    # Strangers of one video are pushed apart as its mean is taken off: their median becomes that of all pairs.
    strangers = strangers - max(float(np.median(strangers) - np.median(distances)), 0.0)
    q5, q20 = np.quantile(strangers, [0.05, 0.2]).tolist()
    if not 0 < q5 < q20:
        return None
    # How many pairs are nearer than each step d. Rows are a sample of the tracklets, and each pair has two cells.
    each = len(members.names) / len(pairs.rows) / 2  # pairs that a cell stands for
    steps = np.linspace(0, q20, STEPS + 1)[1:]
    near = each * np.searchsorted(distances, steps)
    # N / 5 exp(-(q20 - d) / s), with s = (q20 - q5) / log 4
    by_chance = each * len(distances) / 5 * np.exp((steps - q20) * math.log(4) / (q20 - q5))
    # No more than one in twenty by chance, and at least 8 sqrt(k) links.
    trusted = (by_chance <= FALSE_SHARE * near) & (near >= BUNCHES * math.sqrt(len(members.names)))
    if not trusted.any():
        return Evidence(space, steps, near, by_chance, 0.0, 0.0, 0.0)
    # The largest distance at which links are trusted, and tau: the smallest at which nine in ten of them are found.
    last = np.flatnonzero(trusted)[-1]
    first = np.flatnonzero(near >= FOUND * near[last])[0]
    return Evidence(space, steps, near, by_chance, float(steps[first]), float(near[last]), float(by_chance[last]))


def frame_by_frame(tracklets: Tracklets, members: Members, pairs: np.ndarray, space: Space) -> np.ndarray:
    """The distance of each pair of tracklets (P, 2) that share frames, by their images of the same frames.

    With a_t, b_t the images of frame t and A, B the means of both tracklets: 1 - mean_t(a_t.b_t) / (|A| |B|).
    """
    bounds = members.bounds
    frame_key = tracklets.frame_key[members.images]
    # A key for each tracklet in each frame, in order to be looked up.
    many = int(frame_key.max()) + 1
    key = np.where(frame_key == UNKNOWN, -1, members.row * many + frame_key)  # rises within a tracklet
    order = np.argsort(key, kind="stable")
    # Each image `here` of the one tracklet of a pair, and the image `there` of the other tracklet in the same frame.
    one, other = pairs.T
    sizes = bounds[one + 1] - bounds[one]
    pair = np.repeat(np.arange(len(pairs)), sizes)
    here = np.arange(len(pair)) + np.repeat(bounds[one] - np.cumsum(sizes) + sizes, sizes)
    wanted = np.where(frame_key[here] == UNKNOWN, -2, other[pair] * many + frame_key[here])
    place = np.minimum(np.searchsorted(key[order], wanted), len(order) - 1)
    there = order[place]
    met = np.flatnonzero(key[there] == wanted)
    # a_t.b_t of all of them, some at a time.
    product = np.empty(len(met))
    at_once = TOGETHER // tracklets.features.shape[1] + 1
    for first in range(0, len(met), at_once):
        some = met[first : first + at_once]
        a, b = (space(tracklets.features[members.images[side[some]]]) for side in (here, there))
        product[first : first + at_once] = np.einsum("nd,nd->n", a, b)
    mean = np.bincount(pair[met], product, len(pairs)) / np.bincount(pair[met], minlength=len(pairs))
    length = np.linalg.norm(space(members.sums / np.diff(bounds)[:, None]), axis=1)  # |A|, |B|
    return 1 - mean / np.maximum(length[one] * length[other], LEAST**2)
