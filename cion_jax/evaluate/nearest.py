"""Who is nearest: the nearest features of each feature, block by block; all distances are never there at once."""

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
    """The nearest of each row, in order; of equals the one that stands first comes first."""

    index: np.ndarray
    """(rows, count) int32: where they stand."""
    distance: np.ndarray
    """(rows, count) float32: their squared Euclidean distances."""
    farthest: np.ndarray
    """(rows,) float32: the largest distance of each row to any."""


def nearest(
    rows: np.ndarray,
    all_: np.ndarray,
    count: int,
    *,
    block: int = 256,
    progress: Progress = no_progress,
) -> Nearest:
    """The `count` nearest of each row among all; a row that is one of them finds itself.

    Args:
        rows: Features (R, D).
        all_: Features (N, D).
        count: From 1 to N.
        block: Rows that are looked at together; beside the features nothing is larger than block x N.
        progress: Called after each block with its number of rows.
    """
    check(rows, all_)
    if not 1 <= count <= len(all_):
        raise UserError(f"{count} nearest of {len(all_)} features: give a count from 1 to {len(all_)}")
    on_device, blocks = jnp.asarray(all_, jnp.float32), []
    for start in range(0, len(rows), block):
        some = np.asarray(rows[start : start + block], np.float32)
        padded = np.pad(some, ((0, block - len(some)), (0, 0)))  # all blocks are one program
        blocks.append([np.asarray(column)[: len(some)] for column in _nearest_block(padded, on_device, count)])
        progress(len(some))
    return Nearest(*map(np.concatenate, zip(*blocks, strict=True)))


@partial(jax.jit, static_argnums=2)
def _nearest_block(rows: Array, all_: Array, count: int) -> tuple[Array, Array, Array]:
    distance_BxN = squared_distances(rows, all_)
    negative_BxK, index_BxK = lax.top_k(-distance_BxN, count)  # of equals it takes the first
    return index_BxK, -negative_BxK, distance_BxN.max(axis=1)
