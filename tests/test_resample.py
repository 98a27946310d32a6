"""Resizing and blurring as accelerators multiply; test_augment compares what they make of pictures with Pillow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from cion_jax.data import resample


def in_three(formula: str, one: Array, other: Array) -> Array:
    """A product as three of bfloat16, which CPUs replace by one of float32: of what is rounded off, once more rounded,
    only the product of both is left out."""
    high = [lax.reduce_precision(x, 8, 7) for x in (one, other)]
    low = [lax.reduce_precision(x - part, 8, 7) for x, part in zip((one, other), high, strict=True)]
    product = partial(jnp.einsum, formula, precision=lax.Precision.HIGHEST)
    return product(high[0], high[1]) + (product(high[0], low[1]) + product(low[0], high[1]))


def test_three_products_of_bfloat16_make_the_same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a pixel in a thousand, of which the exact value is near a half."""
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8))

    def picture() -> Array:
        resized = resample.resize(image, jnp.array([3, 5, 117, 57]), (96, 40), jnp.array(False))
        return resample.blur(resized, jnp.array(1.3), 2.0)

    whole = jax.jit(picture)()
    monkeypatch.setattr(resample, "product", in_three)
    far = np.abs(jax.jit(lambda: picture())() - whole)
    assert far.max() <= 1 and (far > 0).mean() < 1e-3
    print((far > 0).mean())
