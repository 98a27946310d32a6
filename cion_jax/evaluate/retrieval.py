"""How well queries find their own in a gallery: the protocol of Market-1501 (Zheng et al., "Scalable Person
Re-identification: A Benchmark", ICCV 2015), which is also that of MSMT17, DukeMTMC-reID and CUHK03-NP.

A query ranks the gallery by distance, the nearest first; equal ones stay in the order of the gallery. What shows the
same identity under the same camera is passed over, and so is junk (identity -1), whoever asks. Distractors (identity 0)
are ranked; they are right answers only to a query of identity 0. What is left with the query's identity is right.

    average precision = mean over the right answers of (right answers up to its rank) / (its rank)
    inverse penalty   = (right answers) / (rank of the last of them), Ye et al., arXiv 2001.04193
    true match rate   = share of the right pairs that are nearer than a threshold at which that is so for a given share
                        of the wrong ones: TPR at FPR

Nothing is sorted: the rank of a right answer is 1 + the number of those before it, and on CPUs XLA counts ten times
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

#: Shares of wrong pairs at which true match rates are told.
FALSE_MATCH_RATES = (1e-2, 1e-3, 1e-4)
#: Distances are counted in so many steps between 0 and the largest: true match rates are exact to one of them.
STEPS = 1 << 14


class QueryResults(NamedTuple):
    """What each query found; 0 throughout for a query without a right answer."""

    precision: np.ndarray
    """Average precision."""
    first: np.ndarray
    """Rank of the first right answer."""
    last: np.ndarray
    """Rank of the last one."""
    answers: np.ndarray
    """Number of right answers."""
    pairs: np.ndarray
    """Wrong and right pairs of a query and an image that it ranks, by distance: (2, STEPS)."""


@dataclass(frozen=True)
class Scores:
    """Means over the queries that have a right answer; 1 is perfect."""

    mean_average_precision: float
    rank_1: float
    """Share of queries with a right answer in the first place."""
    rank_5: float
    """The same for the first five places, and so on."""
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
        """The scores by the names that people know."""
        ranks = {f"rank {k}": getattr(self, f"rank_{k}") for k in (1, 5, 10, 20)}
        matches = {
            f"TPR at FPR {rate:g}": found for rate, found in zip(FALSE_MATCH_RATES, self.true_match_rates, strict=True)
        }
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
        block: Queries that are ranked together; beside the features nothing is larger than some times block x G.
        progress: Called with the number of further queries that are ranked here: hosts share them.
    """
    _check(distances, query_labels, gallery_labels)
    answers = right_answers(query_labels, gallery_labels)
    ranks, pairs = [np.empty((0, answers.shape[1]), np.int64)], np.zeros((1, 2, STEPS), np.int64)
    who = jnp.asarray(identities_and_cameras(gallery_labels))
    for rows in batched(local_part(range(distances.queries)), block):
        some = distances.of(rows.start, rows.stop)
        asking, wanted = identities_and_cameras(query_labels[rows]), answers[rows]
        ranks.append(np.asarray(_ranks(some, asking, who, wanted), np.int64))
        pairs += np.asarray(_count_pairs(some, asking, who, STEPS / distances.most))
        progress(len(rows))
    ranked = all_gather(np.concatenate(ranks))
    return QueryResults(*_judge(np.where(answers < 0, 0, ranked)), all_gather(pairs).sum(axis=0))


def scores(found: QueryResults) -> Scores:
    """Means of what queries found."""
    counts = found.answers > 0
    if not counts.any():
        raise UserError("no query has its identity in the gallery under another camera; check identities and cameras")
    first = found.first[counts]
    return Scores(
        mean_average_precision=float(found.precision[counts].mean()),
        rank_1=float(np.mean(first <= 1)),
        rank_5=float(np.mean(first <= 5)),
        rank_10=float(np.mean(first <= 10)),
        rank_20=float(np.mean(first <= 20)),
        mean_inverse_penalty=float(np.mean(found.answers[counts] / found.last[counts])),
        true_match_rates=tuple(true_match_rates(found.pairs, np.array(FALSE_MATCH_RATES)).tolist()),
        queries=int(counts.sum()),
        left_out=int((~counts).sum()),
    )


def roc_curve(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true match rates at each threshold, from none matched to all: the ROC curve."""
    wrong, right = np.cumsum(np.pad(pairs, ((0, 0), (1, 0))), axis=1)
    return wrong / max(wrong[-1], 1), right / max(right[-1], 1)


def true_match_rates(pairs: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The largest true match rate with a false match rate not above each of these."""
    return roc_curve(pairs)[1][_steps_within(pairs, at)]


def _steps_within(pairs: np.ndarray, at: float | np.ndarray) -> np.ndarray:
    """How many steps of distance match no larger a share of the wrong pairs than this."""
    return np.searchsorted(roc_curve(pairs)[0], at, side="right") - 1


class Matches(NamedTuple):
    """Of each query: the pairs that it makes with what it ranks, and those of them that are within a threshold."""

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
    """Count pairs, query by query, at the threshold at which a share `rate` of all wrong pairs is matched at most.

    `pairs` is what `search` found for the same distances and labels.
    """
    _check(distances, query_labels, gallery_labels)
    steps = int(_steps_within(pairs, rate))
    who, scale = jnp.asarray(identities_and_cameras(gallery_labels)), STEPS / distances.most
    counts = [
        np.asarray(
            _count_matches(
                distances.of(rows.start, rows.stop), identities_and_cameras(query_labels[rows]), who, scale, steps
            )
        )
        for rows in batched(range(distances.queries), block)
    ]
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
    """As `passed_over` takes them: (N, 2)."""
    return np.stack([labels["identity"], labels["camera"]], axis=1)


def right_answers(query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Numbers of the gallery's images that are right, a row for each query, filled up with -1."""
    order = np.argsort(gallery_labels["identity"], kind="stable")
    sorted_, asked = gallery_labels["identity"][order], query_labels["identity"]
    spans = zip(np.searchsorted(sorted_, asked), np.searchsorted(sorted_, asked, side="right"), strict=True)
    rows = [
        same[gallery_labels["camera"][same] != one["camera"]] if one["identity"] != -1 else same[:0]
        for one, same in zip(query_labels, (order[begin:end] for begin, end in spans), strict=True)
    ]
    answers = np.full((len(rows), max(1, *(len(row) for row in rows))), -1, np.int32)
    for place, row in zip(answers, rows, strict=True):
        place[: len(row)] = row
    return answers


def ignored(asking: Array | np.ndarray, who: Array | np.ndarray) -> Array:
    """What is not ranked (B, G), from identities and cameras of queries (B, 2) and of the gallery (G, 2)."""
    asking, who = jnp.asarray(asking), jnp.asarray(who)
    same_BxG, near_BxG = (asking[:, None, column] == who[:, column] for column in range(2))
    return (same_BxG & near_BxG) | (who[:, 0] == -1)


@jax.jit
def _ranks(distance: Array, asking: Array, who: Array, answers: Array) -> Array:
    """The rank of each answer (B, P), from 1; anything for those that are -1."""
    distance = jnp.where(ignored(asking, who), jnp.inf, distance)
    place_G = jnp.arange(distance.shape[1])

    def count(number: Array, ranks: Array) -> Array:
        answer = answers[:, number, None]
        own = jnp.take_along_axis(distance, jnp.maximum(answer, 0), axis=1)
        before = (distance < own) | ((distance == own) & (place_G < answer))
        return ranks.at[:, number].set(1 + before.sum(axis=1, dtype=jnp.int32))

    most = jnp.max((answers >= 0).sum(axis=1))
    return lax.fori_loop(0, most, count, jnp.zeros(answers.shape, jnp.int32))


@jax.jit
def _count_pairs(distance: Array, asking: Array, who: Array, scale: Array) -> Array:
    """How many wrong and right pairs lie in each step of distance: (2, STEPS)."""
    step = _step_of(distance, scale)
    right = asking[:, None, 0] == who[:, 0]
    kind = jnp.where(ignored(asking, who), 2, right)
    return jnp.bincount((step + STEPS * kind).ravel(), length=3 * STEPS).reshape(3, STEPS)[:2]


def _step_of(distance: Array, scale: Array) -> Array:
    return jnp.clip((distance * scale).astype(jnp.int32), 0, STEPS - 1)


@jax.jit
def _count_matches(distance: Array, asking: Array, who: Array, scale: Array, steps: Array) -> Array:
    """Right pairs, those of them in the first `steps` steps, and the same of wrong ones, for each query: (4, B)."""
    ranked, right = ~ignored(asking, who), asking[:, None, 0] == who[:, 0]
    near = _step_of(distance, scale) < steps
    kinds = ranked & right, ranked & right & near, ranked & ~right, ranked & ~right & near
    return jnp.stack([kind.sum(axis=1, dtype=jnp.int32) for kind in kinds])


def _judge(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average precision, first and last rank, and the number of answers, from ranks (Q, P) of which 0 is none."""
    answers = (ranks > 0).sum(axis=1)
    ranks = np.sort(np.where(ranks > 0, ranks, np.iinfo(ranks.dtype).max), axis=1)
    real = np.arange(ranks.shape[1]) < answers[:, None]
    precision = np.where(real, (1 + np.arange(ranks.shape[1])) / ranks, 0).sum(axis=1) / np.maximum(answers, 1)
    last = np.take_along_axis(ranks, np.maximum(answers - 1, 0)[:, None], axis=1)[:, 0]
    return precision, np.where(answers, ranks[:, 0], 0), np.where(answers, last, 0), answers
