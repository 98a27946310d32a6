"""The images, tracklets or people of a gallery that are nearest to queries. Distances are 1 - cosine.

The distance of a tracklet or a person is that of its nearest image.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import check, unit
from cion_jax.evaluate.nearest import nearest
from cion_jax.gallery import graph
from cion_jax.gallery.rows import By, group_numbers
from cion_jax.gallery.store import Gallery
from cion_jax.terminal import Progress, no_progress

#: Neighbours that are sought at first for each answer that is a group of images, and how many times more the next time.
AHEAD = 8
#: Distances that are in memory at a time.
TOGETHER = 1 << 28

#: From queries (Q, D) and a count: the rows of the nearest images, (Q, count), in order, and -1 behind them.
Neighbours = Callable[[np.ndarray, int], np.ndarray]


class Found(NamedTuple):
    """The answers to each query, the nearest first."""

    row: np.ndarray
    """(Q, top) the row of the nearest image of each answer; -1 behind the last answer."""
    distance: np.ndarray
    """(Q, top) float32, how far that image is; infinite behind the last answer."""


def search(
    gallery: Gallery,
    queries: np.ndarray,
    top: int = 10,
    by: By = "image",
    *,
    exact: bool = False,
    progress: Progress = no_progress,
) -> Found:
    """Search a gallery for what is nearest to each query.

    Args:
        gallery: From `store.read`, or built from arrays.
        queries: Features (Q, D) of any lengths.
        top: Answers to each query; fewer if the gallery has fewer.
        by: Whether answers are images, tracklets or people.
        exact: Compare with all images, also where the gallery has a graph.
        progress: Called with the number of further queries that are compared with all images.
    """
    if top < 1:
        raise UserError(f"{top} answers: ask for 1 at least")
    vectors = gallery.vectors()
    check(queries, vectors)
    queries = unit(np.asarray(queries, np.float32), "query")
    if gallery.graph is not None and not exact:
        neighbours: Neighbours = partial(graph.neighbours, graph.load(gallery.graph, *vectors.shape), vectors)
    else:
        neighbours = partial(exact_neighbours, vectors, progress=progress)
    return first_of_groups(vectors, queries, group_numbers(gallery.rows, by), top, neighbours)


def exact_neighbours(
    vectors: np.ndarray, queries: np.ndarray, count: int, progress: Progress = no_progress
) -> np.ndarray:
    """The rows of the nearest vectors, by comparison with all of them on the device."""
    block = max(1, min(256, len(queries), TOGETHER // len(vectors)))
    return nearest(queries, vectors, count, block=block, progress=progress).index


def first_of_groups(
    vectors: np.ndarray, queries: np.ndarray, group: np.ndarray, top: int, neighbours: Neighbours
) -> Found:
    """The `top` groups nearest to each query, each by its nearest image.

    Neighbours may all be of a few groups: where there are too few, more neighbours are sought.
    """
    rows = np.full((len(queries), top), -1)
    groups = len(np.unique(group))
    enough = min(top, groups)
    count = min(len(group), top if groups == len(group) else AHEAD * top)
    open_ = np.arange(len(queries))
    while len(open_):
        near = neighbours(queries[open_], count)
        for query, own in zip(open_, near, strict=True):
            own = own[own >= 0]
            _, first = np.unique(group[own], return_index=True)
            answers = own[np.sort(first)[:top]]
            rows[query, : len(answers)] = answers
        open_ = open_[(rows[open_] >= 0).sum(axis=1) < enough] if count < len(group) else open_[:0]
        count = min(len(group), AHEAD * count)
    return _in_order(rows, _distances(vectors, queries, rows))


def _distances(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    result = np.empty(rows.shape, np.float32)
    for query, own in enumerate(rows):
        result[query] = np.where(own < 0, np.inf, 1 - vectors[own] @ queries[query])
    return result


def _in_order(rows: np.ndarray, distance: np.ndarray) -> Found:
    """The nearest first; at equal distances the lower row."""
    order = np.lexsort((rows, distance), axis=1)
    return Found(np.take_along_axis(rows, order, axis=1), np.take_along_axis(distance, order, axis=1))
