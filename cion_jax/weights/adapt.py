"""Weights made for other images: position tables resampled, stems given other input channels."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from cion_jax.errors import UserError
from cion_jax.models.layers import resize_positions
from cion_jax.weights.mapping import State


def adapted(
    state: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], grid: tuple[int, int]
) -> tuple[State, list[str]]:
    """A state_dict whose position tables and stem fit the wanted shapes, and a line for each change.

    Args:
        state: A backbone's state_dict.
        wanted: The shapes that the backbone has.
        grid: Rows and columns of the wanted tables of positions.
    """
    fitted = dict(state)
    notes = []
    for key, shape in wanted.items():
        if key not in state or state[key].shape == shape:
            continue
        values = state[key]
        if key == "pos_embed" and values.shape[-1] == shape[-1]:
            fitted[key] = _table(values, grid)
        elif _is_stem(shape, values.shape):
            fitted[key] = _three_channels(values)
        else:
            continue
        notes.append(f"{key} adapted from {values.shape} to {fitted[key].shape}")
    return fitted, notes


def _is_stem(wanted: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether a kernel (out, in, height, width) over RGB is wanted, and the given one differs only in its input."""
    if len(wanted) != 4 or len(given) != 4 or wanted[1] != 3:
        return False
    return wanted[0] == given[0] and wanted[2:] == given[2:] and (given[1] == 1 or given[1] > 3)


def _table(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """A (1, H, W, C) table, or a (1, 1 + H W, C) one with the class position first, for another grid."""
    if values.ndim == 4:
        return np.asarray(resize_positions(jnp.asarray(values), *grid), values.dtype)
    channels = values.shape[-1]
    table = values[:, 1:].reshape(1, *_rows_and_columns(values.shape[1] - 1), channels)
    resized = np.asarray(resize_positions(jnp.asarray(table), *grid), values.dtype)
    return np.concatenate([values[:, :1], resized.reshape(1, -1, channels)], axis=1)


def _rows_and_columns(tokens: int) -> tuple[int, int]:
    """The shape of a flat table, which does not say it: square, or twice as high as wide, as person images are."""
    for ratio in (1, 2):
        columns = math.isqrt(tokens // ratio)
        if ratio * columns**2 == tokens:
            return ratio * columns, columns
    raise UserError(
        f"pos_embed has {tokens} positions, neither a square nor twice as high as wide; resample it yourself"
    )


def _three_channels(kernel: np.ndarray) -> np.ndarray:
    """A stem's kernel over RGB: from grey a third for each channel, from more channels the first three."""
    return np.repeat(kernel / 3, 3, axis=1) if kernel.shape[1] == 1 else kernel[:, :3]
