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


def max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
