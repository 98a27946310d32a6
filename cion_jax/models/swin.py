"""Swin Transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021),
the variant for detection, which takes images of any size.

Attention stays inside windows of 8x8 tokens, and every second block shifts the windows by half their side. Maps are
padded on the right and at the bottom to whole windows; as published, tokens of padding are attended to like all others,
and windows are shifted even where a map is a single window. 256x128 images end as 8x4 maps. Names are the authors'.

    attention   softmax(q k / sqrt(width) + bias[relative position] + mask) v
    block       y = x + attention(norm(x));  y + mlp(norm(y))
    merging     linear(norm(four neighbours, concatenated))
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cion_jax.models.layers import (
    Conv,
    Heads,
    Joined,
    Linear,
    Mlp,
    drop_path,
    drop_rates,
    keep,
    maybe_remat,
    normal_02,
)
from cion_jax.models.norms import LayerNorm
from cion_jax.models.ops import attend

ORDER = (
    "patch_embed layers norm3 blocks downsample norm1 attn norm2 mlp fc1 fc2 "
    "relative_position_bias_table relative_position_index qkv proj reduction norm"
)

WINDOW = 8
EPSILON = 1e-5


def pad(x: Array, multiple: int) -> Array:
    """Zeros on the right and at the bottom, up to a multiple in height and width."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % multiple), (0, -x.shape[2] % multiple), (0, 0)))


def relative_positions() -> np.ndarray:
    """For each pair of tokens of a window, the row of the bias table."""
    rows, columns = np.divmod(np.arange(WINDOW**2), WINDOW)
    down, right = (axis[:, None] - axis + WINDOW - 1 for axis in (rows, columns))
    return down * (2 * WINDOW - 1) + right


def shift_mask(height: int, width: int) -> np.ndarray:
    """(windows, tokens, tokens): -100 between tokens of a shifted map that are no neighbours in the map itself.

    A shift moves the first rows and columns behind the last; only the last windows of an axis mix the two.
    """
    wrapped = [np.arange(size) >= size - WINDOW // 2 for size in (height, width)]
    region = 2 * wrapped[0][:, None] + wrapped[1]
    region = region.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW).swapaxes(1, 2).reshape(-1, WINDOW**2)
    return np.where(region[:, :, None] == region[:, None, :], np.float32(0), np.float32(-100))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside the windows of a padded map."""

    heads: int
    shift: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        down, across = height // WINDOW, width // WINDOW
        table = self.param("relative_position_bias_table", normal_02, ((2 * WINDOW - 1) ** 2, self.heads))
        bias = table[relative_positions()].transpose(2, 0, 1)
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
            bias = bias + shift_mask(height, width)[:, None]
        windows = x.reshape(batch, down, WINDOW, across, WINDOW, channels).swapaxes(2, 3)
        tokens = windows.reshape(batch, down * across, WINDOW**2, channels)
        q, k, v = Heads(self.heads, name="qkv")(tokens)
        y = Joined(name="proj")(attend(q, k, v, self.heads, bias)).reshape(windows.shape)
        y = y.swapaxes(2, 3).reshape(x.shape)
        return jnp.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y


class Block(nn.Module):
    """A transformer block over a map, normalised before its branches. `rate` is that of drop path."""

    heads: int
    shift: int
    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = pad(LayerNorm(EPSILON, name="norm1")(x), WINDOW)
        y = WindowAttention(self.heads, self.shift, name="attn")(y)
        y = y if y.shape == x.shape else lax.slice(y, (0, 0, 0, 0), x.shape)  # without the padding
        x = x + drop_path(self, y, self.rate, train)
        y = Mlp(4 * x.shape[-1], name="mlp")(LayerNorm(EPSILON, name="norm2")(x))
        return x + drop_path(self, y, self.rate, train)


class PatchEmbed(nn.Module):
    """One token per patch of 4x4 pixels."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.width, 4, 4, padding=0, bias=True, name="proj")(pad(x, 4))
        return LayerNorm(EPSILON, name="norm")(x)


class Merging(nn.Module):
    """Half the resolution, twice the channels. The four neighbours are concatenated column by column."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = pad(x, 2)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
        x = LayerNorm(EPSILON, name="norm")(x.reshape(batch, height // 2, width // 2, 4 * channels))
        return Linear(2 * channels, bias=False, name="reduction")(x)


class Swin(nn.Module):
    """The network: patches, four stages with merging between them, and the mean over the normalised map."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    drop_path: float = 0.0
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        x = PatchEmbed(self.width, name="patch_embed")(x)
        for stage, rates in enumerate(drop_rates(self.drop_path, self.depths)):
            if stage:
                x = Merging(name=f"layers.{stage - 1}.downsample")(x)
            for number, rate in enumerate(rates):
                shift = WINDOW // 2 * (number % 2)
                x = block(self.heads[stage], shift, rate, name=f"layers.{stage}.blocks.{number}")(x, train)
            if stage == len(self.depths) - 1:
                x = LayerNorm(EPSILON, name="norm3")(x)
            x = keep(self, f"stage{stage + 1}", x)
        return jnp.mean(x, axis=(1, 2))


VARIANTS = {
    "swin_tiny": Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path=0.1),
    "swin_small": Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), drop_path=0.1),
    "swin_base": Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), drop_path=0.1),
}
