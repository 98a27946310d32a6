"""A network that tests embed images with, and features by hand to check against."""

import flax.linen as nn
import jax
import numpy as np

from cion_jax.config import MEAN, STD
from cion_jax.data import images
from cion_jax.data.records import Records
from cion_jax.models.zoo import Backbone, Variables

SIZE = (24, 16)


class Tiny(nn.Module):
    """A network that compiles at once and takes the left and the right of an image for different things."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return nn.Dense(6)(nn.Conv(4, (8, 8), (8, 8), padding="VALID")(x).mean(1).reshape(len(x), -1))


TINY = Backbone("tiny", "none", "none", (), SIZE, False, Tiny(), None)


def decoded(records: Records) -> np.ndarray:
    return np.stack([images.resize(records.pixels(number), *SIZE) for number in range(len(records))])


def by_hand(variables: Variables, pixels: np.ndarray, model: Backbone = TINY, flip: bool = False) -> np.ndarray:
    x = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    apply = jax.jit(model.apply)
    result = np.asarray(apply(variables, x)) + (np.asarray(apply(variables, x[:, :, ::-1])) if flip else 0)
    return result / np.linalg.norm(result, axis=1, keepdims=True)
