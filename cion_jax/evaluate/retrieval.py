"""How well queries find their own in a gallery: the protocol of Market-1501 (Zheng et al., "Scalable Person
Re-identification: A Benchmark", ICCV 2015).

A query ranks the gallery by cosine, the highest first; equal ones stay in the order of the gallery. What shows the same
identity under the same camera is passed over, and so is junk (identity -1), whoever asks. Distractors (identity 0) are
ranked; they are right answers only to a query of identity 0. What is left with the query's identity is right.

    average precision = mean over the right answers of (right answers up to its rank) / (its rank)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.errors import UserError
from cion_jax.evaluate.embed import not_unit


@dataclass(frozen=True)
class Scores:
    """Means over the queries that have a right answer; 1 is perfect."""

    mean_average_precision: float
    rank_1: float
    """Share of queries with a right answer in the first place."""
    rank_5: float
    """The same for the first five places."""
    rank_10: float
    """The same for the first ten places."""
    queries: int
    """Queries with a right answer in the gallery."""
    left_out: int
    """Queries without one."""


def mean_average_precision(
    query: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, *, block: int = 256
) -> Scores:
    """Scores of a ranking by cosine.

    Args:
        query: Features of the queries, unit vectors (Q, D).
        gallery: Features of the gallery, unit vectors (G, D).
        query_labels: A row for each query with its `identity` and `camera`.
        gallery_labels: The same for the gallery.
        block: Queries that are ranked together; beside the features nothing is larger than block x G.
    """
    _check(query, query_labels, "query")
    _check(gallery, gallery_labels, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise UserError(
            f"queries are {query.shape[1]} wide, the gallery {gallery.shape[1]}; embed both with one network"
        )
    known = np.flatnonzero(gallery_labels["identity"] != -1)
    if not len(known):
        raise UserError("the gallery is all junk (identity -1); name a split with identities")
    ranked, asked = jnp.asarray(gallery[known]), _who(gallery_labels[known])
    blocks = []
    for start in range(0, len(query), block):
        rows, asking = query[start : start + block], _who(query_labels[start : start + block])
        padding = ((0, block - len(rows)), (0, 0))  # all blocks are one program; what padding scores is cut off
        blocks.append(_rank_block(np.pad(rows, padding), np.pad(asking, padding), ranked, asked))
    precision, first, answers = (np.concatenate(columns)[: len(query)] for columns in zip(*blocks, strict=True))
    counts = answers > 0
    if not counts.any():
        raise UserError("no query has its identity in the gallery under another camera; check identities and cameras")
    rank_1, rank_5, rank_10 = (float(np.mean(first[counts] <= rank)) for rank in (1, 5, 10))
    mean = float(precision[counts].mean(dtype=np.float64))
    return Scores(mean, rank_1, rank_5, rank_10, queries=int(counts.sum()), left_out=int((~counts).sum()))


def _check(features: np.ndarray, labels: np.ndarray, what: str) -> None:
    if features.ndim != 2 or len(features) != len(labels) or not len(features):
        raise UserError(f"{what}: features {features.shape} for {len(labels)} labels; one row for each is needed")
    broken = not_unit(features)
    if len(broken):
        raise UserError(
            f"{what}: the feature of image {broken[0]} is no unit vector of numbers; embed the images again"
        )


def _who(labels: np.ndarray) -> np.ndarray:
    return np.stack([labels["identity"], labels["camera"]], axis=1)


@jax.jit
def _rank_block(query: Array, asking: Array, gallery: Array, asked: Array) -> tuple[Array, Array, Array]:
    """What `_score` says of the queries (B, D) and the gallery (G, D), whose identities and cameras are (B or G, 2)."""
    cosine_BxG = jnp.matmul(query, gallery.T, precision=lax.Precision.HIGHEST)  # TPUs would round to bfloat16
    identity_BxG, camera_BxG = (asking[:, None, column] == asked[:, column] for column in range(2))
    return _score(cosine_BxG, identity_BxG & ~camera_BxG, identity_BxG & camera_BxG)


def _score(similarity: Array, right: Array, passed_over: Array) -> tuple[Array, Array, Array]:
    """Average precision, place of the first right answer, and number of right answers, from three arrays (B, G)."""
    keys = jnp.where(passed_over, jnp.inf, -similarity)  # those come last, behind everything that has a rank
    _, hits_BxG = lax.sort((keys, right), dimension=1, is_stable=True, num_keys=1)
    found_BxG = jnp.cumsum(hits_BxG, axis=1, dtype=jnp.int32)
    precision_BxG = jnp.where(hits_BxG, found_BxG / jnp.arange(1, hits_BxG.shape[1] + 1), 0)
    answers = found_BxG[:, -1]
    return precision_BxG.sum(axis=1) / jnp.maximum(answers, 1), jnp.argmax(hits_BxG, axis=1) + 1, answers
