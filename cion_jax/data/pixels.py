"""Pixels as networks take them."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from cion_jax.config import MEAN, STD

Colour = tuple[float, float, float]


def to_float(pixels: ArrayLike) -> Array:
    """Values 0 to 1, float32, of uint8 pixels."""
    return jnp.asarray(pixels).astype(jnp.float32) / 255


def normalise(values: Array, mean: Colour = MEAN, std: Colour = STD) -> Array:
    """What a network takes: values 0 to 1 of any shape (..., 3), minus the mean and divided by the standard deviation
    of each channel."""
    return (values - jnp.array(mean)) / jnp.array(std)
