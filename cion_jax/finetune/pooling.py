"""Pooling with a trained exponent (Radenovic et al., "Fine-Tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2019): the mean over the map at 1, the maximum in the limit."""

import jax.numpy as jnp
from jax import Array

from cion_jax.models.norms import at_least_float32


def init_exponent(exponent: float = 3.0) -> Array:
    """The exponent at the start, an array of one number."""
    return jnp.full(1, exponent, jnp.float32)  # a weak type would change, and the step be compiled twice


def gem(maps_BxHxWxC: Array, exponent: Array) -> Array:
    """(mean over the map of x^p)^(1/p) of each channel, (B, C) in float32 or better; values below 1e-6 count as 1e-6.

    The exponent p is a scalar, or an array of one number as PyTorch's weights have it.
    """
    positive = jnp.maximum(at_least_float32(maps_BxHxWxC), 1e-6)
    return jnp.mean(positive**exponent, axis=(1, 2)) ** (1 / exponent)
