"""The nearest neighbours of features, block by block: all distances are never in memory at once."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import check, squared_distances
from cion_jax.terminal import Progress, no_progress


@dataclass(frozen=True)
class Nearest:
    """The nearest neighbours of each row, the nearest first; at equal distances the lower number comes first."""

    index: np.ndarray
    """(R, count) int32: the numbers of the neighbours."""
    distance: np.ndarray
    """(R, count) float32: their squared Euclidean distances."""
    farthest: np.ndarray
    """(R,) float32: the largest squared distance of each row from any feature."""


def nearest(
    rows: np.ndarray,
    all_: np.ndarray,
    count: int,
    *,
    block: int = 256,
    progress: Progress = no_progress,
) -> Nearest:
    """The `count` nearest neighbours of each row among all features. A row that is one of them finds itself.

    Args:
        rows: Features (R, D) whose neighbours are sought.
        all_: Features (N, D) among which they are sought.
        count: Neighbours of each row, from 1 to N.
        block: Rows that are compared together. Beside the features, memory holds a few arrays of block x N.
        progress: Called after each block with its number of rows.
    """
    check(rows, all_)
    if not 1 <= count <= len(all_):
        raise UserError(f"{count} nearest of {len(all_)} features: give a count from 1 to {len(all_)}")
    all_NxD = jnp.asarray(all_, jnp.float32)
    blocks = []
    for start in range(0, len(rows), block):
        some = np.asarray(rows[start : start + block], np.float32)
        padded_BxD = np.pad(some, ((0, block - len(some)), (0, 0)))  # so that one program serves all blocks
        blocks.append([np.asarray(column)[: len(some)] for column in _nearest_block(padded_BxD, all_NxD, count)])
        progress(len(some))
    return Nearest(*map(np.concatenate, zip(*blocks, strict=True)))


@partial(jax.jit, static_argnums=2)
def _nearest_block(rows: Array, all_: Array, count: int) -> tuple[Array, Array, Array]:
    distance_BxN = squared_distances(rows, all_)
    negative_BxK, index_BxK = lax.top_k(-distance_BxN, count)  # at equal distances it takes the first
    return index_BxK, -negative_BxK, distance_BxN.max(axis=1)
