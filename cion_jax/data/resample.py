"""Pictures resized and blurred: weighted means along columns and rows, with Pillow's weights and Pillow's rounding.

Pictures are float32 arrays (h, 3, w) of whole numbers 0 to 255; see augment.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

_product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def resize(image: Array, box: Array, size: tuple[int, int], flip: Array) -> Array:
    """The box of a (H, W, 3) image at another size, (h, 3, w): bicubic, antialiased, perhaps mirrored."""
    lines = image.transpose(0, 2, 1).astype(jnp.float32)
    targets = jnp.arange(size[1])
    columns = _bicubic(jnp.arange(image.shape[1]), jnp.where(flip, targets[::-1], targets), box[1], box[3], size[1])
    return whole(_resize_rows(whole(_product("HcW,wW->Hcw", lines, columns)), box[0], box[2], size[0]))


def _resize_rows(lines: Array, start: Array, length: Array, size: int) -> Array:
    """Weights are zero far from the diagonal, so blocks of rows are made from what they need: half the work in all."""
    shrink = lines.shape[0] / size
    block = math.gcd(size, 32)
    window = min(lines.shape[0], math.ceil((block - 1) * shrink + 4 * max(shrink, 1)) + 1)

    def make(first: Array) -> Array:
        step = length / size
        lowest = jnp.ceil(start + (first + 0.5) * step - 2 * jnp.maximum(step, 1) - 0.5).astype(jnp.int32)
        lowest = jnp.clip(lowest, 0, lines.shape[0] - window)
        rows = _bicubic(lowest + jnp.arange(window), first + jnp.arange(block), start, length, size)
        return _product("hH,Hcw->hcw", rows, jax.lax.dynamic_slice_in_dim(lines, lowest, window))

    return jax.vmap(make)(jnp.arange(0, size, block)).reshape(size, *lines.shape[1:])


def _bicubic(sources: Array, targets: Array, start: Array, length: Array, size: int) -> Array:
    """Weights (targets, sources) of pixels in a picture of a size that is made from the pixels start..start+length;
    pixels outside of these have none."""
    step = length / size
    centers = start + (targets + 0.5) * step
    x = jnp.abs(sources + 0.5 - centers[:, None]) / jnp.maximum(step, 1)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    inside = (sources >= start) & (sources < start + length)
    weights = jnp.where(inside & (x < 2), jnp.where(x < 1, near, far), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def whole(values: Array) -> Array:
    """What 8 bits can hold."""
    return jnp.clip(jnp.floor(values + 0.5), 0, 255)


def blur(rgb: Array, radius: Array, largest_radius: float) -> Array:
    """Gaussian blur as Pillow does it, by three box filters along each axis."""
    weights = _box_weights(radius, largest_radius)
    reach = len(weights) - 1

    def box_filter(axis: int, lines: Array) -> Array:
        first, last = (jax.lax.slice_in_dim(lines, i, i + 1, axis=axis) for i in (0, lines.shape[axis] - 1))
        # The barrier has it padded once: fused into the sum, XLA would work out the padding for each of the shifts.
        padded = jax.lax.optimization_barrier(jnp.concatenate([first] * reach + [lines] + [last] * reach, axis))
        shifted = (jax.lax.slice_in_dim(padded, i, i + lines.shape[axis], axis=axis) for i in range(2 * reach + 1))
        return whole(sum((weights[abs(i - reach)] * part for i, part in enumerate(shifted)), jnp.zeros(())))

    for axis in (2, 0):
        rgb = jax.lax.fori_loop(0, 3, lambda _, rgb, axis=axis: box_filter(axis, rgb), rgb)
    return rgb


def _box_weights(radius: Array, largest_radius: float) -> Array:
    """The box filter's weights at distances 0, 1, ...; its outermost pixels count in part, so that three filters
    together have the radius as their standard deviation."""
    reach = int((math.sqrt(4 * largest_radius**2 + 1) - 1) / 2) + 1
    variance = radius**2 / 3
    inner = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1) ** 2))
    distances = jnp.arange(reach + 1)
    weights = jnp.where(distances <= inner, 1, jnp.where(distances == inner + 1, part, 0))
    return weights / (2 * (inner + part) + 1)
