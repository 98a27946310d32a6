"""Pictures resized and blurred: weighted means along columns and rows, with Pillow's weights and Pillow's rounding.

Pictures are float32 arrays (h, 3, w) of whole numbers 0 to 255; see augment.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.config import Kernel

#: Products of weights with whole numbers up to 255, which bfloat16 has exactly. Three products of bfloat16 take 16 bits
#: of a weight, so that a sum is off by less than 0.01, in half the time of a full product. CPUs multiply in float32.
product = partial(jnp.einsum, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3)


def resize(
    image: Array,
    box: Array,
    size: tuple[int, int],
    flip: Array,
    kernel: Kernel = "bicubic",
    *,
    on_cpu: bool = False,
) -> Array:
    """The box of a (H, W, 3) image at another size, (h, 3, w): antialiased, perhaps mirrored.

    Weights are zero far from the diagonal. With `on_cpu` most of the zeros are left out, which halves the work in all;
    elsewhere products cost less than to pick out the rows for them.
    """
    top, left, height, width = box
    lines_Hx3xW = image.transpose(0, 2, 1).astype(jnp.float32)
    targets = jnp.arange(size[1])
    mirrored = jnp.where(flip, targets[::-1], targets)
    weights_wxW = _weights(kernel, jnp.arange(image.shape[1]), mirrored, left, width, size[1])
    lines_Hx3xw = whole(product("HcW,wW->Hcw", lines_Hx3xW, weights_wxW))
    make_rows = _rows_by_blocks if on_cpu else _rows
    return whole(make_rows(kernel, lines_Hx3xw, top, height, size[0]))


def _rows(kernel: Kernel, lines_Hx3xw: Array, start: Array, length: Array, size: int) -> Array:
    """Rows (size, 3, w) from the rows start..start+length."""
    weights_hxH = _weights(kernel, jnp.arange(len(lines_Hx3xw)), jnp.arange(size), start, length, size)
    return product("hH,Hcw->hcw", weights_hxH, lines_Hx3xw)


def _rows_by_blocks(kernel: Kernel, lines_Hx3xw: Array, start: Array, length: Array, size: int) -> Array:
    """The same rows, a block at a time from the window of rows that it needs."""
    rows, *line = lines_Hx3xw.shape
    shrink = rows / size
    block = math.gcd(size, 32)
    window = min(rows, math.ceil((block - 1) * shrink + 4 * max(shrink, 1)) + 1)

    def make(first: Array) -> Array:
        step = length / size
        lowest = jnp.ceil(start + (first + 0.5) * step - 2 * jnp.maximum(step, 1) - 0.5).astype(jnp.int32)
        lowest = jnp.clip(lowest, 0, rows - window)
        weights = _weights(kernel, lowest + jnp.arange(window), first + jnp.arange(block), start, length, size)
        return product("hH,Hcw->hcw", weights, jax.lax.dynamic_slice_in_dim(lines_Hx3xw, lowest, window))

    return jax.vmap(make)(jnp.arange(0, size, block)).reshape(size, *line)


def _weights(kernel: Kernel, sources: Array, targets: Array, start: Array, length: Array, size: int) -> Array:
    """Weights (targets, sources) of pixels in a picture of a size that is made from the pixels start..start+length;
    pixels outside of these have none."""
    step = length / size
    centers = start + (targets + 0.5) * step
    x = jnp.abs(sources + 0.5 - centers[:, None]) / jnp.maximum(step, 1)
    inside = (sources >= start) & (sources < start + length)
    weights = jnp.where(inside, _KERNELS[kernel](x), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def _bicubic(x: Array) -> Array:
    near = (1.5 * x - 2.5) * x * x + 1  # Keys' cubic with a = -0.5, below a distance of 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2  # and below 2
    return jnp.where(x < 2, jnp.where(x < 1, near, far), 0)


def _bilinear(x: Array) -> Array:
    return jnp.maximum(1 - x, 0)


_KERNELS = {"bicubic": _bicubic, "bilinear": _bilinear}  # neither reaches farther than 2


def whole(values: Array) -> Array:
    """What 8 bits can hold."""
    return jnp.clip(jnp.floor(values + 0.5), 0, 255)


def blur(rgb: Array, radius: Array, largest_radius: float, *, on_cpu: bool = False) -> Array:
    """Gaussian blur as Pillow does it, by three box filters along each axis.

    They are products with a banded matrix. That is most of a matrix of zeros, but to a TPU a product is cheap, and to
    shift a picture by a pixel is not; on a CPU it is the other way round.
    """
    weights = _box_weights(radius, largest_radius)
    if on_cpu:
        return _blur_by_shifts(rgb, weights)
    for axis, formula in ((2, "hcw,vw->hcv"), (0, "hcw,gh->gcw")):
        band = _band(weights, rgb.shape[axis])
        for _ in range(3):
            rgb = whole(product(formula, rgb, band))
    return rgb


def _band(weights: Array, length: int) -> Array:
    """The (length, length) matrix of a box filter; what lies beyond an edge is like the edge."""
    reach = len(weights) - 1
    places = jnp.arange(length)
    shifts = range(-reach, reach + 1)
    return sum(
        (weights[abs(by)] * (jnp.clip(places + by, 0, length - 1)[:, None] == places) for by in shifts),
        jnp.zeros((length, length)),
    )


def _blur_by_shifts(rgb: Array, weights: Array) -> Array:
    reach = len(weights) - 1

    def box_filter(axis: int, lines: Array) -> Array:
        length = lines.shape[axis]
        first, last = (jax.lax.slice_in_dim(lines, i, i + 1, axis=axis) for i in (0, length - 1))
        # The barrier has it padded once: fused into the sum, XLA would work out the padding for each of the shifts.
        padded = jax.lax.optimization_barrier(jnp.concatenate([first] * reach + [lines] + [last] * reach, axis))
        shifted = (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * reach + 1))
        return whole(sum((weights[abs(i - reach)] * part for i, part in enumerate(shifted)), jnp.zeros(())))

    for axis in (2, 0):
        rgb = jax.lax.fori_loop(0, 3, lambda _, rgb, axis=axis: box_filter(axis, rgb), rgb)
    return rgb


def _box_weights(radius: Array, largest_radius: float) -> Array:
    """The box filter's weights at distances 0, 1, ...; its outermost pixels count in part, so that three filters
    together have the radius as their standard deviation."""
    reach = int((math.sqrt(4 * largest_radius**2 + 1) - 1) / 2) + 1
    variance = radius**2 / 3  # of each of the three boxes
    inner = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)  # the last distance of weight 1
    part = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1) ** 2))
    distances = jnp.arange(reach + 1)
    weights = jnp.where(distances <= inner, 1, jnp.where(distances == inner + 1, part, 0))
    return weights / (2 * (inner + part) + 1)
