"""XLA's own forms of what `ops` offers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from cion_jax.models.norms import at_least_float32


def product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def to_heads(x: Array, kernel: Array, heads: int) -> tuple[Array, Array, Array]:
    """The products write heads in front of tokens: afterwards that would be three copies."""
    kernel_Cx3xHxD = kernel.reshape(kernel.shape[0], 3, heads, -1)
    q, k, v = (jnp.einsum("...tc,chd->...htd", x, kernel_Cx3xHxD[:, number]) for number in range(3))
    return q, k, v


def attend(q: Array, k: Array, v: Array, heads: int, bias: Array | None = None) -> Array:
    head_width = q.shape[-3] * q.shape[-1] // heads
    scores = at_least_float32(q @ jnp.swapaxes(k, -1, -2)) * head_width**-0.5
    if bias is not None:
        scores += bias
    return jax.nn.softmax(scores, axis=-1).astype(v.dtype) @ v


def from_heads(x: Array, kernel: Array) -> Array:
    groups, _, width = x.shape[-3:]
    return jnp.einsum("...gtd,gdc->...tc", x, kernel.reshape(groups, width, -1))


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    if is_product(kernel, edge, groups):
        return product(every(x, stride), kernel[0, 0])
    return convolution(x, kernel, stride, edge, groups)


def is_product(kernel: Array, edge: int, groups: int) -> bool:
    """Whether a convolution is a product over the channels."""
    return kernel.shape[0] == 1 and groups == 1 and not edge


def convolution(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    strides = (stride, stride)
    edges = ((edge, edge), (edge, edge))
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, edges, dimension_numbers=layout, feature_group_count=groups)


def every(x: Array, stride: int) -> Array:
    """Every row and column at a multiple of the stride."""
    return lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1)) if stride > 1 else x


def max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
