"""How the identities change as tau moves: one linkage, cut at many distances.

Average linkage merges the closest first, and the distances at which it merges rise. So the merges below any distance
make the same clusters as linking with this distance as tau. Tracklets are linked once, up to the largest tau, and the
rest is read off the merges. All tracklets are compared at once, as level 3 does without a range; images that tracklets
dropped stay dropped.

Near pairs are computed on this host alone: one process writes the report, and must not wait for others, as in near.py.
"""

from typing import NamedTuple

import numpy as np

from cion_jax.denoise.clusters import Clusters, merge_near
from cion_jax.denoise.thresholds import Evidence, frames_seen

#: More tracklets than this are not swept: comparing all of them takes too long for a report.
LARGEST = 20_000
#: Values of tau above 0, up to the chosen one.
UP_TO_TAU = 16
#: Values above 0 in all.
VALUES = 24
#: Near pairs that are linked at the most; where there are more, the sweep ends at a smaller tau.
MOST = 1 << 19
#: Tracklets whose distances to all others are computed together.
ROWS = 512
#: Pairs whose frames are compared together.
TOGETHER = 1 << 16


class Step(NamedTuple):
    """The partition of the tracklets at one tau."""

    tau: float
    identities: int
    merged: int
    """Pairs of tracklets in one cluster: the sum of n (n - 1) / 2 over clusters of n."""
    forbidden: int
    """Pairs of tracklets that are nearer than tau, but share a frame: links that are forbidden."""
    stability: float
    """The share of the merged pairs that the value before has too. Partitions of one linkage are nested, so that this
    is the Jaccard index of both sets of pairs; 1 where there are none."""


def sweep(clusters: Clusters, tau: float, evidence: Evidence | None = None) -> list[Step]:
    """The partitions at values from 0 to 1.5 tau; the one at number UP_TO_TAU is tau itself.

    Where tau is 0, the values go up to the last step of the evidence. The list ends before the value at which more than
    MOST pairs are near. It is empty if that is the first value above 0, if there are more than LARGEST tracklets, or if
    neither tau nor evidence says how far to go.
    """
    count = len(clusters.members.names)
    farthest = float(evidence.steps[-1]) if evidence else 0.0
    values = np.arange(VALUES + 1) * (tau / UP_TO_TAU or farthest / VALUES)
    if count > LARGEST or not values[-1]:
        return []
    pairs, distance, values = _near(clusters.vectors, values)
    if len(values) == 1:
        return []
    relinked = Clusters(clusters.tracklets, clusters.members, clusters.vectors)
    merge_near(relinked, pairs, values[-1])
    merges = np.array([merge[0] for merge in relinked.merges])
    merged = _pairs_merged(relinked)
    forbidden = np.sort(distance[share_frame(clusters, pairs)])
    steps: list[Step] = []
    for value in values.tolist():
        done = int(np.searchsorted(merges, value))
        before = steps[-1].merged if steps else 0
        stability = before / merged[done] if merged[done] else 1.0
        steps.append(Step(value, count - done, merged[done], int(np.searchsorted(forbidden, value)), stability))
    return steps


def share_frame(clusters: Clusters, pairs: np.ndarray) -> np.ndarray:
    """(P,) whether a frame shows both tracklets of a pair (P, 2); tracklets are named by their rows."""
    seen = frames_seen(clusters.tracklets, clusters.members)
    shared = np.zeros(len(pairs), bool)
    for first in range(0, len(pairs), TOGETHER):
        one, other = pairs[first : first + TOGETHER].T
        shared[first : first + TOGETHER] = (seen[one] * seen[other]).sum(axis=1) > 0
    return shared


def _near(vectors_TxD: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (P, 2) nearer than the last value, their distances (P,), and the values: only those for which P <= MOST."""
    pairs = np.empty((0, 2), np.int64)
    distance = np.empty(0)
    for first in range(0, len(vectors_TxD), ROWS):
        distance_RxT = np.maximum(1 - vectors_TxD[first : first + ROWS] @ vectors_TxD[first:].T, 0)
        one, other = np.nonzero(np.triu(distance_RxT < values[-1], 1))
        pairs = np.concatenate([pairs, first + np.stack([one, other], axis=1)])
        distance = np.concatenate([distance, distance_RxT[one, other]])
        while len(pairs) > MOST:
            values = values[:-1]
            near = distance < values[-1]
            pairs = pairs[near]
            distance = distance[near]
    return pairs, distance, values


def _pairs_merged(clusters: Clusters) -> list[int]:
    """Pairs of tracklets in one cluster, before the first merge and after each."""
    sizes = [1] * len(clusters.members.names)
    pairs = [0]
    for _, one, other in clusters.merges:
        pairs.append(pairs[-1] + sizes[one] * sizes[other])
        sizes[one] += sizes[other]
    return pairs
