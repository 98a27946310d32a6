"""XLA's own forms of what `ops` offers."""

import flax.linen as nn
from jax import Array, lax


def product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    strides = (stride, stride)
    edges = ((edge, edge), (edge, edge))
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, edges, dimension_numbers=layout, feature_group_count=groups)


def every(x: Array, stride: int) -> Array:
    """Every row and column at a multiple of the stride."""
    return lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1)) if stride > 1 else x


def max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
