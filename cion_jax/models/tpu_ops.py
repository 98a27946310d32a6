"""Forms of what `ops` offers for TPUs: XLA's own, but products over maps are convolutions, and heads share lanes.

XLA lays maps out as the convolutions around them want it. To go over to a product of matrices, and back, would be
copies, and what stands between could not be fused.

A TPU's arrays and its matrix unit are 128 lanes wide, and a head fills 32 or 64 of them. So as many heads as fill them
stay side by side, and a product of one takes the whole group with the lanes of the others put to 0: it costs the same,
and arrays of half-empty lanes are never written. Three heads of 32, which leave lanes empty, are slower so.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cion_jax.models import xla_ops
from cion_jax.models.xla_ops import from_heads, max_pool

__all__ = ["attend", "convolve", "from_heads", "max_pool", "product", "to_heads"]

LANES = 128


def product(x: Array, kernel: Array) -> Array:
    is_map = x.ndim == 4
    return xla_ops.convolution(x, kernel[None, None], 1, 0, 1) if is_map else xla_ops.product(x, kernel)


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    if stride > 1 and xla_ops.is_product(kernel, edge, groups):
        return _strided_product(x, kernel, stride)
    return xla_ops.convolution(x, kernel, stride, edge, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _strided_product(x: Array, kernel: Array, stride: int) -> Array:
    """A 1x1 convolution with a stride. XLA's gradient of x multiplies the positions that are left out as well, by 0."""
    return xla_ops.convolution(x, kernel, stride, 0, 1)


def _strided_product_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _strided_product(x, kernel, stride), (x, kernel)


def _strided_product_backward(stride: int, kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = kept
    _, back_to_x = jax.vjp(lambda x: xla_ops.convolution(xla_ops.every(x, stride), kernel, 1, 0, 1), x)
    _, back_to_kernel = jax.vjp(lambda kernel: xla_ops.convolution(x, kernel, stride, 0, 1), kernel)
    return back_to_x(cotangent)[0], back_to_kernel(cotangent)[0]


_strided_product.defvjp(_strided_product_forward, _strided_product_backward)


def to_heads(x: Array, kernel: Array, heads: int) -> tuple[Array, Array, Array]:
    channels = kernel.shape[0]
    groups = channels // LANES
    are_filled = channels % LANES == 0 and heads % groups == 0
    return xla_ops.to_heads(x, kernel, groups if are_filled else heads)


def attend(q: Array, k: Array, v: Array, heads: int, bias: Array | None = None) -> Array:
    groups, width = q.shape[-3], q.shape[-1]
    together = heads // groups
    if together == 1:
        return xla_ops.attend(q, k, v, heads, bias)
    head_of_lane = np.arange(width) * together // width
    found = jnp.zeros_like(q)
    for head in range(together):
        is_own = head_of_lane == head
        own_bias = None if bias is None else bias[..., head::together, :, :]
        found += xla_ops.attend(jnp.where(is_own, q, 0), k, jnp.where(is_own, v, 0), heads, own_bias)
    return found
