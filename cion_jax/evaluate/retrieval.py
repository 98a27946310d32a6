"""How well queries find their own in a gallery: the protocol of Market-1501 (Zheng et al., "Scalable Person
Re-identification: A Benchmark", ICCV 2015), which is also that of MSMT17, DukeMTMC-reID and CUHK03-NP.

A query ranks the gallery by distance, the nearest first; equal distances stay in the order of the gallery. Two kinds of
images are ignored: those of the query's identity under the query's camera, and junk (identity -1). Distractors
(identity 0) are ranked; they are right answers only to a query of identity 0. Of the ranked images, those of the
query's identity are right, the others wrong.

    average precision = mean over the right answers of (right answers up to its rank) / (its rank)
    inverse penalty   = (right answers) / (rank of the last of them), Ye et al., arXiv 2001.04193
    true match rate   = share of the right pairs that are nearer than a threshold, at the threshold at which a given
                        share of the wrong pairs is nearer: TPR at FPR. (fast-reid's TPR@FPR is read the other way: the
                        share of the wrong pairs that are farther, where a share of the right pairs is farther.)

Nothing is sorted: the rank of a right answer is 1 + the number of images before it, and on CPUs XLA counts ten times
faster than it sorts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import Distances
from cion_jax.evaluate.embed import batched
from cion_jax.hosts import all_gather, local_part
from cion_jax.terminal import Progress, no_progress

#: False match rates at which scores give the true match rate.
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4)
#: Bins of the histogram of distances, from 0 to the upper bound: true match rates are exact to one bin.
BINS = 1 << 14


class QueryResults(NamedTuple):
    """The results of each query, (Q,) each. A query without a right answer has 0 everywhere."""

    precision: np.ndarray
    """Average precision."""
    first: np.ndarray
    """Rank of the first right answer."""
    last: np.ndarray
    """Rank of the last one."""
    answers: np.ndarray
    """Number of right answers."""
    pairs: np.ndarray
    """(2, BINS): over all queries, histograms of the distances of wrong pairs and of right pairs; a pair is a query and
    an image that it ranks."""


@dataclass(frozen=True)
class Scores:
    """Means over the queries that have a right answer; 1 is perfect."""

    mean_average_precision: float
    rank_1: float
    """Share of queries with a right answer in the first place."""
    rank_5: float
    """Share of queries with a right answer among the first five, and so on."""
    rank_10: float
    rank_20: float
    mean_inverse_penalty: float
    true_match_rates: tuple[float, ...]
    """At FALSE_MATCH_RATES, over all pairs."""
    queries: int
    """Queries with a right answer in the gallery."""
    left_out: int
    """Queries without one."""

    def as_dict(self) -> dict[str, float | int]:
        """The scores by their usual names: mAP, rank 1, mINP, ..."""
        ranks = {f"rank {k}": getattr(self, f"rank_{k}") for k in (1, 5, 10, 20)}
        rates = zip(FALSE_MATCH_RATES, self.true_match_rates, strict=True)
        matches = {f"TPR at FPR {false:g}": true for false, true in rates}
        shares = {"mAP": self.mean_average_precision, **ranks, "mINP": self.mean_inverse_penalty, **matches}
        return shares | {"queries": self.queries, "left out": self.left_out}


def search(
    distances: Distances,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    block: int = 64,
    progress: Progress = no_progress,
) -> QueryResults:
    """Let every query rank the gallery.

    Args:
        distances: From `distances.cosine`, `distances.euclidean` or `rerank.reranked`.
        query_labels: A row for each query with its `identity` and `camera`.
        gallery_labels: The same for the gallery.
        block: Queries that are ranked together. Beside the features, memory holds a few arrays of block x G.
        progress: Called with the number of further queries that this host has ranked: hosts share the queries.
    """
    _check(distances, query_labels, gallery_labels)
    answers_QxP = right_answers(query_labels, gallery_labels)
    gallery_ids = jnp.asarray(identities_and_cameras(gallery_labels))
    bins_per_unit = BINS / distances.upper_bound
    ranks = [np.empty((0, answers_QxP.shape[1]), np.int64)]
    pairs = np.zeros((1, 2, BINS), np.int64)
    for rows in batched(local_part(range(distances.queries)), block):
        distance_BxG = distances.of(rows.start, rows.stop)
        query_ids = identities_and_cameras(query_labels[rows])
        ranks.append(np.asarray(_ranks(distance_BxG, query_ids, gallery_ids, answers_QxP[rows]), np.int64))
        pairs += np.asarray(_count_pairs(distance_BxG, query_ids, gallery_ids, bins_per_unit))
        progress(len(rows))
    rank_QxP = all_gather(np.concatenate(ranks))
    per_query = _summarise(np.where(answers_QxP < 0, 0, rank_QxP))
    return QueryResults(*per_query, pairs=all_gather(pairs).sum(axis=0))


def scores(results: QueryResults) -> Scores:
    """Mean scores of what `search` returned."""
    has_answer = results.answers > 0
    if not has_answer.any():
        raise UserError("no query has its identity in the gallery under another camera; check identities and cameras")
    first = results.first[has_answer]
    return Scores(
        mean_average_precision=float(results.precision[has_answer].mean()),
        rank_1=float(np.mean(first <= 1)),
        rank_5=float(np.mean(first <= 5)),
        rank_10=float(np.mean(first <= 10)),
        rank_20=float(np.mean(first <= 20)),
        mean_inverse_penalty=float(np.mean(results.answers[has_answer] / results.last[has_answer])),
        true_match_rates=tuple(true_match_rates(results.pairs, np.array(FALSE_MATCH_RATES)).tolist()),
        queries=int(has_answer.sum()),
        left_out=int((~has_answer).sum()),
    )


def roc_curve(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve: false and true match rates at each threshold, from none matched to all.

    Args:
        pairs: (2, BINS) histograms of wrong and right pairs, from `search`.
    """
    wrong, right = np.cumsum(np.pad(pairs, ((0, 0), (1, 0))), axis=1)
    return wrong / max(wrong[-1], 1), right / max(right[-1], 1)


def true_match_rates(pairs: np.ndarray, false_match_rates: np.ndarray) -> np.ndarray:
    """For each false match rate, the largest true match rate at which it is kept."""
    return roc_curve(pairs)[1][_bins_within(pairs, false_match_rates)]


def _bins_within(pairs: np.ndarray, false_match_rate: float | np.ndarray) -> np.ndarray:
    """The number of bins that a threshold may let pass so that the false match rate is kept."""
    return np.searchsorted(roc_curve(pairs)[0], false_match_rate, side="right") - 1


class Matches(NamedTuple):
    """For each query, (Q,) each: the pairs that it makes with the images it ranks, and those within a threshold."""

    right: np.ndarray
    right_matched: np.ndarray
    wrong: np.ndarray
    wrong_matched: np.ndarray


def matches(
    distances: Distances,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    pairs: np.ndarray,
    rate: float,
    *,
    block: int = 64,
) -> Matches:
    """Count pairs, query by query, at the largest threshold that matches at most a share `rate` of all wrong pairs.

    `pairs` are those of the `QueryResults` of the same distances and labels.
    """
    _check(distances, query_labels, gallery_labels)
    bins = int(_bins_within(pairs, rate))
    gallery_ids = jnp.asarray(identities_and_cameras(gallery_labels))
    bins_per_unit = BINS / distances.upper_bound
    counts = []
    for rows in batched(range(distances.queries), block):
        distance_BxG = distances.of(rows.start, rows.stop)
        query_ids = identities_and_cameras(query_labels[rows])
        counts.append(np.asarray(_count_matches(distance_BxG, query_ids, gallery_ids, bins_per_unit, bins)))
    return Matches(*np.concatenate(counts, axis=1))


def _check(distances: Distances, query_labels: np.ndarray, gallery_labels: np.ndarray) -> None:
    for what, count, labels in (
        ("query", distances.queries, query_labels),
        ("gallery", distances.gallery, gallery_labels),
    ):
        if count != len(labels):
            raise UserError(f"{what}: {count} features for {len(labels)} labels; one for each is needed")
    if not (gallery_labels["identity"] != -1).any():
        raise UserError("the gallery is all junk (identity -1); name a split with identities")


def identities_and_cameras(labels: np.ndarray) -> np.ndarray:
    """(N, 2): what `ignored` takes."""
    return np.stack([labels["identity"], labels["camera"]], axis=1)


def right_answers(query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """The right answers to each query, (Q, P): numbers of images of the gallery, filled up with -1."""
    order = np.argsort(gallery_labels["identity"], kind="stable")  # puts the images of an identity side by side
    identity_sorted = gallery_labels["identity"][order]
    begins = np.searchsorted(identity_sorted, query_labels["identity"])
    ends = np.searchsorted(identity_sorted, query_labels["identity"], side="right")
    rows = []
    for query, begin, end in zip(query_labels, begins, ends, strict=True):
        same_identity = order[begin:end] if query["identity"] != -1 else order[:0]
        other_camera = gallery_labels["camera"][same_identity] != query["camera"]
        rows.append(same_identity[other_camera])
    answers_QxP = np.full((len(rows), max(1, *(len(row) for row in rows))), -1, np.int32)
    for padded, row in zip(answers_QxP, rows, strict=True):
        padded[: len(row)] = row
    return answers_QxP


def ignored(query_ids: Array | np.ndarray, gallery_ids: Array | np.ndarray) -> Array:
    """Which images a query does not rank, (B, G), from identities and cameras of queries (B, 2) and gallery (G, 2)."""
    query_ids = jnp.asarray(query_ids)
    gallery_ids = jnp.asarray(gallery_ids)
    same_identity_BxG = query_ids[:, None, 0] == gallery_ids[:, 0]
    same_camera_BxG = query_ids[:, None, 1] == gallery_ids[:, 1]
    is_junk_G = gallery_ids[:, 0] == -1
    return (same_identity_BxG & same_camera_BxG) | is_junk_G


@jax.jit
def _ranks(distance_BxG: Array, query_ids: Array, gallery_ids: Array, answers_BxP: Array) -> Array:
    """The rank of each right answer, (B, P), from 1; where the answer is -1 the rank has no meaning."""
    distance_BxG = jnp.where(ignored(query_ids, gallery_ids), jnp.inf, distance_BxG)  # behind all that is ranked
    place_G = jnp.arange(distance_BxG.shape[1])

    def count(column: Array, ranks_BxP: Array) -> Array:
        answer_Bx1 = answers_BxP[:, column, None]
        own_Bx1 = jnp.take_along_axis(distance_BxG, jnp.maximum(answer_Bx1, 0), axis=1)
        # Of equal distances, the image that comes first in the gallery is before the other.
        before_BxG = (distance_BxG < own_Bx1) | ((distance_BxG == own_Bx1) & (place_G < answer_Bx1))
        return ranks_BxP.at[:, column].set(1 + before_BxG.sum(axis=1, dtype=jnp.int32))

    most_answers = jnp.max((answers_BxP >= 0).sum(axis=1))
    return lax.fori_loop(0, most_answers, count, jnp.zeros(answers_BxP.shape, jnp.int32))


@jax.jit
def _count_pairs(distance_BxG: Array, query_ids: Array, gallery_ids: Array, bins_per_unit: Array) -> Array:
    """Histograms of the distances of wrong and of right pairs, (2, BINS)."""
    bin_BxG = _bin_of(distance_BxG, bins_per_unit)
    is_right_BxG = query_ids[:, None, 0] == gallery_ids[:, 0]
    kind_BxG = jnp.where(ignored(query_ids, gallery_ids), 2, is_right_BxG)  # 0 wrong, 1 right, 2 not ranked
    return jnp.bincount((bin_BxG + BINS * kind_BxG).ravel(), length=3 * BINS).reshape(3, BINS)[:2]


def _bin_of(distance: Array, bins_per_unit: Array) -> Array:
    return jnp.clip((distance * bins_per_unit).astype(jnp.int32), 0, BINS - 1)


@jax.jit
def _count_matches(
    distance_BxG: Array, query_ids: Array, gallery_ids: Array, bins_per_unit: Array, bins: Array
) -> Array:
    """The columns of `Matches`, (4, B), where a pair matches if it lies in the first `bins` bins."""
    is_ranked = ~ignored(query_ids, gallery_ids)
    is_right = query_ids[:, None, 0] == gallery_ids[:, 0]
    is_near = _bin_of(distance_BxG, bins_per_unit) < bins
    right = is_ranked & is_right
    wrong = is_ranked & ~is_right
    kinds = (right, right & is_near, wrong, wrong & is_near)
    return jnp.stack([kind.sum(axis=1, dtype=jnp.int32) for kind in kinds])


def _summarise(rank_QxP: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision, first rank, last rank and number of the right answers, from their ranks; 0 is no answer."""
    answers = (rank_QxP > 0).sum(axis=1)
    # Ranks in rising order, with what is no answer behind them.
    rank_QxP = np.sort(np.where(rank_QxP > 0, rank_QxP, np.iinfo(rank_QxP.dtype).max), axis=1)
    is_answer_QxP = np.arange(rank_QxP.shape[1]) < answers[:, None]
    up_to_rank_P = 1 + np.arange(rank_QxP.shape[1])
    precision = np.where(is_answer_QxP, up_to_rank_P / rank_QxP, 0).sum(axis=1) / np.maximum(answers, 1)
    first = rank_QxP[:, 0]
    last = np.take_along_axis(rank_QxP, np.maximum(answers - 1, 0)[:, None], axis=1)[:, 0]
    return precision, np.where(answers, first, 0), np.where(answers, last, 0), answers
