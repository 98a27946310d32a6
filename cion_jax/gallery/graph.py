"""Approximate search for galleries of millions: a graph of neighbours (HNSW) in one file, by the package usearch.

Keys are the rows of the gallery. Vectors in the file are rounded to 8 bits, each on a scale of its own. So the graph
only proposes: more than was asked for, of which the nearest are told by the features themselves.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cion_jax.errors import UserError

if TYPE_CHECKING:
    from usearch.index import Index

#: Neighbours of a vector in the graph; candidates while it is put in, and while one searches: more find more.
CONNECTIVITY = 16
WHEN_ADDED = 64
WHEN_SOUGHT = 128
#: How many times more neighbours it proposes than are asked for.
PROPOSED = 4
#: Vectors of the gallery that measure how much is found.
SAMPLE = 200


def build(vectors: np.ndarray) -> "Index":
    """A graph of unit vectors (N, D)."""
    index = _new(vectors.shape[1])
    index.add(np.arange(len(vectors)), _rounded(vectors))
    return index


def extended(path: Path, vectors: np.ndarray, known: int) -> "Index":
    """The graph in a file of the first `known` of some vectors, with the others added."""
    index = load(path, known, vectors.shape[1], view=False)
    index.add(np.arange(known, len(vectors)), _rounded(vectors[known:]))
    return index


def load(path: Path, images: int, width: int, view: bool = True) -> "Index":
    """The graph in a file, mapped into memory or read. It must be of so many vectors of this width."""
    index = _new(width)
    remedy = "make the index again"
    try:
        (index.view if view else index.load)(path)
    except Exception as error:  # usearch promises no kind of error
        raise UserError(f"{path}: unreadable ({' '.join(str(error).split())[:120]}); {remedy}") from None
    if (len(index), index.ndim) != (images, width):
        raise UserError(f"{path}: {len(index):,} vectors, {index.ndim} wide, not {images:,} of {width}; {remedy}")
    return index


def neighbours(index: "Index", vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """The rows of the nearest of the vectors as the graph finds them, (Q, count), the nearest first; -1 at the end."""
    proposed = min(PROPOSED * count, len(vectors))
    index.expansion_search = max(WHEN_SOUGHT, proposed)
    matches = index.search(_rounded(queries), proposed)
    result = np.full((len(queries), count), -1)
    of_each = [matches] if len(queries) == 1 else matches  # usearch gives a single query no row of its own
    for query, own, match in zip(queries, result, of_each, strict=True):
        keys = match.keys.astype(np.int64)
        nearest_first = np.argsort(-(vectors[keys] @ query), kind="stable")[:count]
        own[: len(nearest_first)] = keys[nearest_first]
    return result


def recall(index: "Index", vectors: np.ndarray, sample: np.ndarray, exact: np.ndarray) -> float:
    """The share of the nearest of some vectors that the graph finds; that a vector finds itself does not count.

    Args:
        index: The graph.
        vectors: (N, D) all vectors.
        sample: (S,) the rows of those that ask.
        exact: (S, count) the rows of the nearest to each, itself among them.
    """
    found = neighbours(index, vectors, vectors[sample], exact.shape[1])
    others = [
        ({*right} - {own}, {*given}) for own, right, given in zip(sample, exact.tolist(), found.tolist(), strict=True)
    ]
    return sum(len(right & given) for right, given in others) / max(sum(len(right) for right, _ in others), 1)


def _rounded(vectors: np.ndarray) -> np.ndarray:
    """Vectors as int8, the largest value of each at 127: cosines do not see the scale."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)


def _new(width: int) -> "Index":
    try:
        from usearch.index import Index
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; `pip install 'cion-jax[search]'`") from None
    return Index(
        ndim=width,
        metric="cos",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=WHEN_ADDED,
        expansion_search=WHEN_SOUGHT,
    )
