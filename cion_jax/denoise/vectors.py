"""Arithmetic of unit vectors, in parts that fit into memory and on all cores. Distances are 1 - a.b."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_array

#: Floats of features that a core works on at a time.
TOGETHER = 1 << 22
#: Sums in another order may differ by this: so much beyond sigma, or below tau, does not count.
ROUNDING = 1e-9


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors, along the last axis, at length 1; one of length 0 stays as it is."""
    lengths = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / np.where(lengths > 0, lengths, 1)


def distances(one_NxD: np.ndarray, other_NxD: np.ndarray) -> np.ndarray:
    """1 - a.b, row by row, in float64."""
    return 1 - np.einsum("nd,nd->n", one_NxD, other_NxD, dtype=np.float64)


def sums(vectors_NxD: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(R, D) the sum of each run of rows; many times faster than `np.add.reduceat` where runs are short."""
    ones = np.ones(len(vectors_NxD))
    columns = np.arange(len(vectors_NxD))
    return csr_array((ones, columns, bounds), shape=(len(bounds) - 1, len(vectors_NxD))) @ vectors_NxD


def starts(values: np.ndarray) -> np.ndarray:
    """Whether a row differs from the one before; the first does."""
    differs = values[1:] != values[:-1]
    return np.concatenate([[True], differs if differs.ndim == 1 else differs.any(axis=1)])


def in_parts(work: Callable[[slice], None], bounds: np.ndarray, width: int) -> None:
    """Do some work on all runs of rows, some runs at a time, on all cores.

    In float64 a copy of all features would need twice their memory. NumPy lets other threads run while it computes.
    """
    rows = max(TOGETHER // width, 1)
    parts = []
    first = 0
    while first < len(bounds) - 1:  # as many runs as fit into so many rows, and at least one
        end = max(first + 1, int(np.searchsorted(bounds, bounds[first] + rows, side="right")) - 1)
        parts.append(slice(first, end))
        first = end
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        deque(pool.map(work, parts), maxlen=0)
