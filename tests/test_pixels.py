"""Pixels as networks take them: the same values in training, in embedding, and by hand."""

import jax.numpy as jnp
import numpy as np

from cion_jax.data import augment
from cion_jax.data.pixels import normalise, to_float

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)


def test_equal_to_the_formula() -> None:
    expected = (IMAGE / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    values = normalise(to_float(IMAGE))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_training_and_embedding_show_a_network_the_same_values() -> None:
    """Crops are laid out as (height, 3, width) until then."""
    crop = jnp.asarray(IMAGE, jnp.float32).transpose(0, 2, 1)
    np.testing.assert_array_equal(augment.normalise(crop), normalise(to_float(IMAGE)))
