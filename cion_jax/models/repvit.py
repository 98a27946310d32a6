"""RepViT (Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective", CVPR 2024): a convolutional network in the
shape of a transformer, where a block mixes first positions, then channels. Names are the original project's.

    norm(x)     BatchNorm, in training by batch statistics
    block       y = se(norm(norm(dw3(x)) + dw1(x) + x))                          se in every other block
                y + norm(conv1(gelu(norm(conv1(y)))))
    downsample  y = norm(conv1(norm(dw3(x))))                                    dw3 of stride 2
                y + norm(conv1(gelu(norm(conv1(y)))))
    se(x)       x hard_sigmoid(conv1(relu(conv1(mean(x)))))

The fused form, for inference, has no norms, and of the first line one depthwise convolution is left: y = se(dw3(x)).
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.models.fusing import Node, identity, layer, loaded, normed, rewritten, summed
from cion_jax.models.layers import Conv, Initializer, SqueezeExcite, gelu, keep, maybe_remat
from cion_jax.models.norms import BatchNorm

ORDER = "features token_mixer channel_mixer m c conv conv1 bn conv_reduce conv_expand"


class ConvNorm(nn.Module):
    """A convolution and its norm; fused, a convolution with bias and nothing below it."""

    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    scale_init: Initializer = nn.initializers.ones
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = partial(Conv, self.features, self.kernel, self.stride, groups=self.groups)
        if self.fused:
            single = conv(bias=True)
            nn.share_scope(self, single)
            return single(x)
        return BatchNorm(self.scale_init, name="bn")(conv(name="c")(x), train)


class TokenMixer(nn.Module):
    """Depthwise 3x3, depthwise 1x1 and identity, summed and normed."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        channels = x.shape[-1]
        y = ConvNorm(channels, 3, groups=channels, name="conv")(x, train)
        y += Conv(channels, groups=channels, bias=True, name="conv1")(x)
        return BatchNorm(name="bn")(x + y, train)


class Block(nn.Module):
    """Mixes positions, then channels. With stride 2 it is a downsampling to another width."""

    features: int
    stride: int
    squeeze: bool
    fused: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        channels = x.shape[-1]
        fused = self.fused
        if self.stride == 1 and not fused:
            x = TokenMixer(name="token_mixer.0")(x, train)
        else:
            x = ConvNorm(channels, 3, self.stride, channels, fused=fused, name="token_mixer.0")(x, train)
        if self.stride == 2:
            x = ConvNorm(self.features, fused=fused, name="token_mixer.2")(x, train)
        if self.squeeze:
            hidden = (x.shape[-1] + 8) // 16 * 4  # a quarter, rounded to a multiple of 4
            x = SqueezeExcite(hidden, name="token_mixer.1")(x)
        y = ConvNorm(2 * self.features, fused=fused, name="channel_mixer.m.0")(x, train)
        # a scale of zero: at first the block passes on what it gets
        zero = nn.initializers.zeros
        return x + ConvNorm(self.features, scale_init=zero, fused=fused, name="channel_mixer.m.2")(gelu(y), train)


class RepViT(nn.Module):
    """The network: a stem of stride 4, four stages, and the mean over the map."""

    width: int
    depths: tuple[int, ...]
    fused: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        x = ConvNorm(self.width // 2, 3, 2, fused=self.fused, name="features.0.0")(x, train)
        x = ConvNorm(self.width, 3, 2, fused=self.fused, name="features.0.2")(gelu(x), train)
        place = 1
        for stage, depth in enumerate(self.depths):
            # stride and squeeze-excite of each block: in turns with and without, the last one without
            blocks = [(1, number % 2 == 0 and number < depth - 1) for number in range(depth)]
            if stage:
                blocks.insert(0, (2, False))
            for stride, squeeze in blocks:
                x = block(self.width << stage, stride, squeeze, self.fused, name=f"features.{place}")(x, train)
                place += 1
            x = keep(self, f"stage{stage + 1}", x)
        return jnp.mean(x, axis=(1, 2))


def fuse(variables: dict[str, Any]) -> dict[str, Any]:
    """Variables of the fused form, from trained ones."""
    return rewritten(variables, _fused)


def _fused(node: Node) -> Node:
    match node:
        case {"c": conv, "bn": norm}:
            return layer(loaded(conv, norm))
        case {"conv": {"c": conv, "bn": inner}, "conv1": point, "bn": norm}:
            branches = summed(loaded(conv, inner), loaded(point), identity(1, len(point["bias"])))
            return layer(normed(branches, norm))
    return node


VARIANTS = {
    "repvit_m0_9": RepViT(48, (3, 3, 15, 2)),
    "repvit_m1_0": RepViT(56, (3, 3, 15, 2)),
    "repvit_m1_5": RepViT(64, (5, 5, 25, 4)),
}
