"""Forms and gradients of what `ops` offers that XLA runs well on CPUs, where its own are many times slower.

A convolution of stride s padded by e zeros, with x_j the image at position j, k_t the kernel's tap t, and y_i:

    y_i = sum_t x_(s i + t - e) k_t
    d_x_(s i + t - e) += d_y_i k_t'             for each i and t
    d_k_t = sum_i x_(s i + t - e)' d_y_i

`_depthwise` takes one tap after the other, where the products are of channels with themselves; `_one_product` lays all
taps side by side, on maps smaller than the kernel; `_dense` is XLA's own but for its gradients.

`tests/test_gradients.py` holds their gradients against XLA's; `experiments.benchmarks.backbone` times a whole network
of them beside PyTorch.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.models import xla_ops
from cion_jax.models.norms import at_least_float32
from cion_jax.models.xla_ops import attend

__all__ = ["attend", "convolve", "from_heads", "max_pool", "product", "to_heads"]


def product(x: Array, kernel: Array) -> Array:
    """Of more axes than two XLA would transpose the whole cotangent for the kernel's gradient, which takes longer than
    the product itself."""
    rows = x.reshape(-1, x.shape[-1])
    return (rows @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def to_heads(x: Array, kernel: Array, heads: int) -> tuple[Array, Array, Array]:
    """One product; a product for each head would be slower."""
    made = product(x, kernel).reshape(*x.shape[:-1], 3, heads, -1)
    q, k, v = jnp.moveaxis(jnp.moveaxis(made, -3, 0), -2, -3)
    return q, k, v


def from_heads(x: Array, kernel: Array) -> Array:
    tokens_first = x.swapaxes(-3, -2)
    return product(tokens_first.reshape(*tokens_first.shape[:-2], -1), kernel)


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    size, channels, features = kernel.shape[0], x.shape[-1], kernel.shape[-1]
    if xla_ops.is_product(kernel, edge, groups):
        return product(xla_ops.every(x, stride), kernel[0, 0])
    if groups == channels == features:
        return _depthwise(x, kernel, stride, edge)
    if groups > 1:
        return xla_ops.convolution(x, kernel, stride, edge, groups)
    if x.shape[1] * x.shape[2] < size * size:
        return _one_product(x, kernel, stride, edge)
    return _dense(x, kernel, stride, edge)


def max_pool(x: Array) -> Array:
    """The gradient of XLA's own takes three times as long."""
    for axis in (2, 1):
        edges = [(0, 0, 0)] * 4
        edges[axis] = (1, 1, 0)
        padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
        length = (x.shape[axis] + 1) // 2
        taps = [lax.slice_in_dim(padded, tap, tap + 2 * length - 1, 2, axis) for tap in range(3)]
        # not jnp.maximum: of equal values the first gets the whole cotangent, as in XLA's own
        x = reduce(lambda largest, tap: jnp.where(largest >= tap, largest, tap), taps)
    return x


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """y_i = sum_t x_(s i + t - e) k_t, in float32 or better, tap by tap.

    JAX's own rule for the gradient is the one written out here, but a loop differentiated takes it long to trace.
    """
    padded = _pad(x, edge)

    def add(total: Array, tap: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, column, weights = tap
        return total + at_least_float32(_seen(padded, row, column, len(kernel), stride) * weights), None

    height, width = (-(-(length - len(kernel) + 1) // stride) for length in padded.shape[1:3])
    start = at_least_float32(jnp.zeros((x.shape[0], height, width, x.shape[-1]), x.dtype))
    total, _ = lax.scan(add, start, _taps(kernel))
    return total.astype(x.dtype)


def _depthwise_forward(x: Array, kernel: Array, stride: int, edge: int) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, stride, edge), (x, kernel)


def _depthwise_backward(stride: int, edge: int, kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = kept
    padded = _pad(x, edge)
    height, width = (length - len(kernel) + 1 for length in padded.shape[1:3])
    # from i to s i: s - 1 zeros between neighbours, and behind the last up to where the tap's window ends
    spread = [(0, 0, 0)]
    for axis, side in ((1, height), (2, width)):
        spread += [(0, side - stride * (cotangent.shape[axis] - 1) - 1, stride - 1)]
    spread += [(0, 0, 0)]

    def learn(d_padded: Array, tap: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        row, column, weights = tap
        d_weights = lax.reduce_sum(_seen(padded, row, column, len(kernel), stride) * cotangent, (0, 1, 2))
        d_seen = lax.pad(cotangent * weights, jnp.zeros((), x.dtype), spread)
        return d_padded + lax.dynamic_update_slice(jnp.zeros_like(padded), d_seen, (0, row, column, 0)), d_weights

    d_padded, d_taps = lax.scan(learn, jnp.zeros_like(padded), _taps(kernel), reverse=True)
    d_x = d_padded[:, edge : edge + x.shape[1], edge : edge + x.shape[2]]
    return d_x, d_taps.reshape(kernel.shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _taps(kernel: Array) -> tuple[Any, Any, Array]:
    """Row, column and weights (C,) of each tap."""
    size = len(kernel)
    rows, columns = np.divmod(np.arange(size * size), size)
    return rows, columns, kernel.reshape(size * size, -1)


def _seen(padded: Array, row: Array, column: Array, size: int, stride: int) -> Array:
    """x_(s i + t - e) for all i, where t is the tap in this row and column."""
    images, height, width, channels = padded.shape
    window = lax.dynamic_slice(padded, (0, row, column, 0), (images, height - size + 1, width - size + 1, channels))
    return xla_ops.every(window, stride)


def _one_product(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """A convolution as one matrix product: on maps smaller than its kernel XLA's own takes 100 times as long."""
    size = kernel.shape[0]
    padded = _pad(x, edge)
    height, width = (length - size + 1 for length in padded.shape[1:3])
    images, channels = x.shape[0], x.shape[-1]

    def seen(row: int, column: int) -> Array:
        end = (images, row + height, column + width, channels)
        return lax.slice(padded, (0, row, column, 0), end, (1, stride, stride, 1))

    taps = [seen(*tap) for tap in np.ndindex(size, size)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """XLA's own. Its gradient for the kernel would take up to ten times as long as the convolution."""
    return xla_ops.convolution(x, kernel, stride, edge, 1)


def _dense_forward(x: Array, kernel: Array, stride: int, edge: int) -> tuple[Array, tuple[Array, Array]]:
    return xla_ops.convolution(x, kernel, stride, edge, 1), (x, kernel)


def _dense_backward(stride: int, edge: int, kept: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = kept
    if stride == 1:
        (d_x,) = jax.linear_transpose(lambda x: xla_ops.convolution(x, kernel, stride, edge, 1), x)(cotangent)
    else:
        d_x = _images_gradient(x, kernel, cotangent, stride, edge)
    return d_x, _kernel_gradient(x, kernel, cotangent, stride, edge)


_dense.defvjp(_dense_forward, _dense_backward)


def _images_gradient(x: Array, kernel: Array, cotangent: Array, stride: int, edge: int) -> Array:
    """d_x_(s i + t - e) += d_y_i k_t': what each tap lays over the images, summed."""
    transposed = lax.optimization_barrier(kernel.swapaxes(2, 3))  # k'

    def lay(row: int, column: int) -> Array:
        tap = cotangent @ transposed[row, column]  # d_y k_t'
        # i goes to s i + t - e: s - 1 zeros between neighbours, and as many around them as images need, fewer than 0
        # where the tap lay on the edge
        spread = [(0, 0, 0)]
        for axis, start in ((1, row - edge), (2, column - edge)):
            last = start + stride * (tap.shape[axis] - 1)
            spread += [(start, x.shape[axis] - last - 1, stride - 1)]
        return lax.pad(tap, jnp.zeros((), x.dtype), [*spread, (0, 0, 0)])

    return reduce(jnp.add, [lay(*tap) for tap in np.ndindex(*kernel.shape[:2])])


def _kernel_gradient(x: Array, kernel: Array, cotangent: Array, stride: int, edge: int) -> Array:
    """d_k_t = sum_i x_(s i + t - e)' d_y_i: a product for each row of the kernel, with what its columns see side by
    side.

    XLA would make these copies of x as soon as there is an x, in the forward pass, and hold them until there is a
    cotangent: so the zeros around x are made of the cotangent.
    """
    size = kernel.shape[0]
    zero = jnp.minimum(jnp.abs(cotangent[0, 0, 0, 0]), 0)
    padded = lax.pad(x, zero, ((0, 0, 0), (edge, edge, 0), (edge, edge, 0), (0, 0, 0)))
    height, width = (stride * (length - 1) + 1 for length in cotangent.shape[1:3])
    # x_(s i + t - e) of all columns of the kernel, on the channels' axis
    seen = [padded[:, :, column : column + width : stride] for column in range(size)]
    seen = lax.optimization_barrier(jnp.concatenate(seen, axis=-1))
    # for each row of the kernel: (D, columns of the kernel and C)
    rows = [_summed_products(cotangent, seen[:, row : row + height : stride]) for row in range(size)]
    return jnp.stack(rows).reshape(size, -1, size, x.shape[-1]).transpose(0, 2, 3, 1)


def _summed_products(x: Array, y: Array) -> Array:
    """Products of each channel of x with each of y, summed over images and positions."""
    rows = (0,), (0,)
    return lax.dot_general(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), (rows, ((), ())))


def _pad(x: Array, edge: int) -> Array:
    return jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
