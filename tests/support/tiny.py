"""A backbone that compiles in a second, for the tests of training: convolutions, BatchNorm, drop path."""

import sys

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.config import Crops, Head, Optimization, Pretraining
from cion_jax.models.layers import Conv, drop_path, maybe_remat
from cion_jax.models.norms import BatchNorm
from cion_jax.models.zoo import Family

ORDER = "conv1 bn1 block conv2 bn2"


class Block(nn.Module):
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = nn.relu(BatchNorm(name="bn2")(Conv(8, 3, 1, name="conv2")(x), train))
        return x + drop_path(self, y, self.drop_path, train)


class Tiny(nn.Module):
    drop_path: float = 0.3
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = nn.relu(BatchNorm(name="bn1")(Conv(8, 3, 4, name="conv1")(x), train))
        return jnp.mean(maybe_remat(Block, self.remat)(self.drop_path, name="block")(x, train), axis=(1, 2))


VARIANTS = {"tiny": Tiny()}
#: To be entered in the zoo while a test runs.
FAMILY = Family("Tiny", "none", sys.modules[__name__])

SETTINGS = Pretraining(
    backbone="tiny",
    epochs=4,
    batch=16,
    instances=(2, 4),
    stages=(0, 2),
    image_size=(32, 16),
    crops=Crops(global_size=(32, 16), local_size=(16, 8), local_crops=1),
    head=Head(prototypes=64, hidden=16, bottleneck=8, block=24),
    optimization=Optimization(warmup=1),
    precision="float32",
    threads=1,
    keep=2,
    keep_every=2,
    checkpoint_steps=5,
)
