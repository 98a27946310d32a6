"""Products and convolutions, with the forms and gradients that XLA runs well on CPU; elsewhere they are its own.

`tests/test_gradients.py` holds their gradients against XLA's; `experiments.benchmarks.backbone` times a whole network
of them beside PyTorch.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.models.norms import at_least_float32


def product(x: Array, kernel: Array) -> Array:
    """x W over the last axis, of rows: where x has more axes, XLA turns all slopes around on CPU for the kernel's
    gradient, which takes longer than the product itself."""
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _summed_products(x: Array, y: Array) -> Array:
    """Products of each channel of x with each of y, summed over all that comes before channels."""
    return lax.dot_general(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), (((0,), (0,)), ((), ())))


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    """A convolution of (N, H, W, C) with a (size, size, C / groups, D) kernel, padded with `edge` zeros."""
    size, channels, features = kernel.shape[0], x.shape[-1], kernel.shape[-1]
    if size == 1 and groups == 1 and not edge:
        return product(x[:, ::stride, ::stride], kernel[0, 0])
    own = partial(_xla, stride=stride, edge=edge, groups=groups)
    if groups == channels == features:
        on_cpu = _sum_taps
    elif groups == 1 and x.shape[1] * x.shape[2] < size * size:
        on_cpu = _one_product
    else:
        return _dense(x, kernel, stride, edge) if groups == 1 else own(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=partial(on_cpu, stride=stride, edge=edge), default=own)


def _xla(x: Array, kernel: Array, stride: int, edge: int, groups: int = 1) -> Array:
    strides, edges, layout = (stride, stride), ((edge, edge), (edge, edge)), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, edges, dimension_numbers=layout, feature_group_count=groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dense(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """XLA's own, but for the gradients on CPU, where that of a kernel takes up to ten times a convolution's time."""
    return _xla(x, kernel, stride, edge)


def _dense_forward(x: Array, kernel: Array, stride: int, edge: int) -> tuple[Array, tuple[Array, Array]]:
    return _xla(x, kernel, stride, edge), (x, kernel)


def _dense_backward(stride: int, edge: int, kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    def with_xla(x: Array, kernel: Array, slope: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, kernel: _xla(x, kernel, stride, edge), x, kernel)[1](slope)

    def on_cpu(x: Array, kernel: Array, slope: Array) -> tuple[Array, Array]:
        image = with_xla(x, kernel, slope)[0] if stride == 1 else _image_slope(x, kernel, slope, stride, edge)
        return image, _kernel_slope(x, kernel, slope, stride, edge)

    return lax.platform_dependent(*kept, slope, cpu=on_cpu, default=with_xla)


_dense.defvjp(_dense_forward, _dense_backward)


def _image_slope(x: Array, kernel: Array, slope: Array, stride: int, edge: int) -> Array:
    """The gradient of the images: what each tap of the kernel lays over them, summed."""
    turned = lax.optimization_barrier(kernel.swapaxes(2, 3))

    def lay(row: int, column: int) -> Array:
        spread = [(0, 0, 0)]
        for axis, start in ((1, row - edge), (2, column - edge)):
            spread += [(start, x.shape[axis] - start - stride * (slope.shape[axis] - 1) - 1, stride - 1)]
        return lax.pad(slope @ turned[row, column], jnp.zeros((), x.dtype), [*spread, (0, 0, 0)])

    return reduce(jnp.add, [lay(*tap) for tap in np.ndindex(*kernel.shape[:2])])


def _kernel_slope(x: Array, kernel: Array, slope: Array, stride: int, edge: int) -> Array:
    """The kernel's gradient: a product for each row of the kernel, with what its columns see side by side.

    XLA would make these copies of x as soon as there is an x, in the forward pass, and hold them until there are
    slopes: so the zeros around x are made of a slope.
    """
    zero, size = jnp.minimum(jnp.abs(slope[0, 0, 0, 0]), 0), kernel.shape[0]
    height, width = (stride * (length - 1) + 1 for length in slope.shape[1:3])
    padded = lax.pad(x, zero, ((0, 0, 0), (edge, edge, 0), (edge, edge, 0), (0, 0, 0)))
    seen = [padded[:, :, column : column + width : stride] for column in range(size)]
    seen = lax.optimization_barrier(jnp.concatenate(seen, axis=-1))
    rows = [_summed_products(slope, seen[:, row : row + height : stride]) for row in range(size)]
    return jnp.stack(rows).reshape(size, -1, size, x.shape[-1]).transpose(0, 2, 3, 1)


def _one_product(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """A convolution as one matrix product: on maps smaller than its kernel XLA's own is 100 times slower on CPU."""
    size, padded = kernel.shape[0], jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    height, width = (length - size + 1 for length in padded.shape[1:3])
    taps = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(size) for j in range(size)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _sum_taps(x: Array, kernel: Array, stride: int, edge: int) -> Array:
    """A depthwise convolution as a sum of shifted products: XLA's own is many times slower on CPU."""
    kernel, padded = jnp.asarray(kernel), jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    size = kernel.shape[0]
    height, width = (length - size + 1 for length in padded.shape[1:3])

    @jax.checkpoint  # or the backward pass would be handed a copy of x for each tap
    def add(total: Array, tap: Array) -> tuple[Array, None]:
        row, column = tap // size, tap % size
        seen = lax.dynamic_slice(padded, (0, row, column, 0), (len(x), height, width, x.shape[-1]))
        return total + at_least_float32(seen[:, ::stride, ::stride] * kernel[row, column, 0]), None

    start = at_least_float32(jnp.zeros((len(x), -(-height // stride), -(-width // stride), x.shape[-1]), x.dtype))
    return lax.scan(add, start, jnp.arange(size * size))[0].astype(x.dtype)
