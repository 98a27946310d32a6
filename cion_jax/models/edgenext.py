"""EdgeNeXt (Maaz et al., "EdgeNeXt: Efficiently Amalgamated CNN-Transformer Architecture for Mobile Vision
Applications", ECCV Workshops 2022): small ConvNeXt stages, of which all but the first end with attention.

That attention is XCiT's (El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021), between channels
in place of tokens, so its cost grows only linearly with the image. The total stride is 32, and 256x128 images end as
8x4 maps. Names are the original project's.

    stage            blocks after a downsampling, as in ConvNeXt; depthwise kernels grow from 3 to 9
    attention block  y = concat(s_1, ..., s_(n-1), x_n), where s_i = dwconv3(x_i + s_(i-1)) and x_i are slices of x
                     y = y + positions                                       (in the second stage)
                     y = y + gamma_xca * xca(norm(y))
                     x + gamma * linear(gelu(linear(norm(y))))
    xca              linear(softmax(temperature * q k^T) v), where rows are channels, those of q and k of length 1
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.models.convnext import Block, Linear, bottleneck, downsample, layer_scale
from cion_jax.models.layers import Conv, drop_path, drop_rates, keep, maybe_remat
from cion_jax.models.norms import LayerNorm, at_least_float32

ORDER = (
    "downsample_layers stages gamma_xca gamma dwconv convs pos_embd norm_xca xca norm pwconv1 pwconv2 "
    "token_projection temperature qkv proj"
)


def fourier_positions(height: int, width: int) -> np.ndarray:
    """Sines and cosines of each place, (height, width, 64): 32 of its row, then 32 of its column.

    Rows and columns count from 1 and the last is a full turn of the first of 16 waves, whatever the size of the map.
    """
    waves = 10000.0 ** (-np.arange(16) / 16)

    def axis(length: int) -> np.ndarray:
        angles = 2 * np.pi * np.arange(1, length + 1)[:, None] / (length + 1e-6) * waves
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, 32)

    shape = (height, width, 32)
    rows, columns = axis(height)[:, None], axis(width)[None]
    return np.concatenate([np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)], axis=-1)


class CrossCovariance(nn.Module):
    """Attention between the channels of each head, over (batch, tokens, channels)."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, tokens, channels = x.shape
        temperature = self.param("temperature", nn.initializers.ones, (self.heads, 1, 1))
        qkv = Linear(3 * channels, name="qkv")(x)
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, -1).transpose(2, 0, 3, 4, 1)
        scores = _unit(at_least_float32(q)) @ _unit(at_least_float32(k)).swapaxes(-1, -2) * temperature
        mixed = jax.nn.softmax(scores, axis=-1).astype(x.dtype) @ v
        mixed = mixed.transpose(0, 3, 1, 2).reshape(batch, tokens, channels)
        return Linear(channels, name="proj")(mixed)


def _unit(x: Array) -> Array:
    """Rows of length 1; lengths below 1e-12 count as that, and the root never sees a 0 it has no gradient at."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-24))


class AttentionBlock(nn.Module):
    """A residual block around depthwise convolutions of growing reach and cross-covariance attention (the paper's SDTA
    encoder)."""

    heads: int
    slices: int
    positions: bool
    drop_path: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        batch, height, width, channels = x.shape
        y = self._reach(x)
        if self.positions:
            table = jnp.asarray(fourier_positions(height, width), x.dtype)[None]
            y += Conv(channels, bias=True, name="pos_embd.token_projection")(table)
        tokens = LayerNorm(name="norm_xca")(y).reshape(batch, -1, channels)
        mixed = CrossCovariance(self.heads, name="xca")(tokens).reshape(y.shape)
        y += drop_path(self, layer_scale(self, "gamma_xca", mixed), self.drop_path, train)
        return x + drop_path(self, bottleneck(self, y), self.drop_path, train)

    def _reach(self, x: Array) -> Array:
        """Each slice of the channels but the last goes through one more 3x3 convolution than the slice before."""
        size = -(-x.shape[-1] // self.slices)
        *parts, last = jnp.split(x, list(range(size, x.shape[-1], size)), axis=-1)
        done: list[Array] = []
        for number, part in enumerate(parts):
            part = part + done[-1] if done else part
            done.append(Conv(size, 3, groups=size, bias=True, name=f"convs.{number}")(part))
        return jnp.concatenate([*done, last], axis=-1)


class EdgeNeXt(nn.Module):
    """The network: four stages, the mean over the map, and a norm."""

    widths: tuple[int, ...]
    heads: int
    depths: tuple[int, ...] = (3, 3, 9, 3)
    drop_path: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        attention = maybe_remat(AttentionBlock, self.remat)
        for stage, rates in enumerate(drop_rates(self.drop_path, self.depths)):
            x = downsample(x, stage, self.widths[stage])
            for number, rate in enumerate(rates):
                name = f"stages.{stage}.{number}"
                if stage > 0 and number == len(rates) - 1:
                    x = attention(self.heads, stage + 1, stage == 1, rate, name=name)(x, train)
                else:
                    x = block(2 * stage + 3, rate, name=name)(x, train)
            x = keep(self, f"stage{stage + 1}", x)
        return LayerNorm(name="norm")(jnp.mean(x, axis=(1, 2)))


VARIANTS = {
    "edgenext_x_small": EdgeNeXt((32, 64, 100, 192), heads=4),
    "edgenext_small": EdgeNeXt((48, 96, 160, 304), heads=8),
    "edgenext_base": EdgeNeXt((80, 160, 288, 584), heads=8),
}
