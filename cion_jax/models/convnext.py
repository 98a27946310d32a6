"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022): a ResNet brought to the shape of a Swin transformer,
with large depthwise kernels in the place of attention.

The total stride is 32, and 256x128 images end as 8x4 maps. Names are the original project's.

    stage    blocks after a downsampling: conv4/4 and a norm before the first, a norm and conv2/2 before the others
    block    x + gamma * linear(gelu(linear(norm(dwconv7(x)))))
    feature  norm(mean over the map)
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.models import layers
from cion_jax.models.layers import Conv, drop_path, drop_rates, gelu, keep, maybe_remat
from cion_jax.models.norms import LayerNorm

ORDER = "downsample_layers stages gamma dwconv norm pwconv1 pwconv2"

#: With PyTorch's default initialisation.
Linear = partial(layers.Linear, kernel_init=layers.torch_default, bias_init=None)


def downsample(x: Array, stage: int, features: int) -> Array:
    """The way into a stage, counted from 0: images become a quarter as high and wide, maps half."""
    name = f"downsample_layers.{stage}"
    if stage == 0:
        return LayerNorm(name=f"{name}.1")(Conv(features, 4, 4, padding=0, bias=True, name=f"{name}.0")(x))
    return Conv(features, 2, 2, padding=0, bias=True, name=f"{name}.1")(LayerNorm(name=f"{name}.0")(x))


def layer_scale(module: nn.Module, name: str, x: Array) -> Array:
    """Multiply by a learned factor per channel, at first close to 0."""
    return x * module.param(name, nn.initializers.constant(1e-6), (x.shape[-1],)).astype(x.dtype)


def bottleneck(module: nn.Module, x: Array) -> Array:
    """A norm, two linears four times as wide between as outside, and a layer scale."""
    y = LayerNorm(name="norm")(x)
    y = Linear(4 * x.shape[-1], name="pwconv1")(y)
    y = Linear(x.shape[-1], name="pwconv2")(gelu(y))
    return layer_scale(module, "gamma", y)


class Block(nn.Module):
    """A residual block around a depthwise convolution."""

    kernel: int
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = Conv(x.shape[-1], self.kernel, groups=x.shape[-1], bias=True, name="dwconv")(x)
        return x + drop_path(self, bottleneck(self, y), self.drop_path, train)


class ConvNeXt(nn.Module):
    """The network: four stages, the mean over the map, and a norm."""

    depths: tuple[int, ...]
    width: int
    """Channels of the first stage; each further stage has twice as many."""
    drop_path: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        for stage, rates in enumerate(drop_rates(self.drop_path, self.depths)):
            x = downsample(x, stage, self.width << stage)
            for number, rate in enumerate(rates):
                x = block(7, rate, name=f"stages.{stage}.{number}")(x, train)
            x = keep(self, f"stage{stage + 1}", x)
        return LayerNorm(name="norm")(jnp.mean(x, axis=(1, 2)))


VARIANTS = {
    "convnext_tiny": ConvNeXt((3, 3, 9, 3), 96),
    "convnext_small": ConvNeXt((3, 3, 27, 3), 96),
    "convnext_base": ConvNeXt((3, 3, 27, 3), 128),
}
