"""VOLO (Yuan et al., "VOLO: Vision Outlooker for Visual Recognition", TPAMI 2022).

Outlook attention mixes a fine map by small neighbourhoods: the mean of each 2x2 square predicts, comparing nothing, how
the 3x3 positions around it mix into each other. Then a coarser map goes through ordinary transformer blocks, and two
blocks of class attention (Touvron et al., "Going deeper with Image Transformers", ICCV 2021) gather it into one token.
Names are timm's; 256x128 images end as 16x8 maps.

    outlook(x)       fold(softmax(W mean2x2(x)) unfold(V x))
    block            x + attention(norm(x));  x + mlp(norm(x))
    class block      the same for the class token c alone, which attends to [c, x]
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from cion_jax.models.layers import (
    Attention,
    Conv,
    Linear,
    Mlp,
    drop_path,
    drop_rates,
    keep,
    maybe_remat,
    normal_02,
    relu,
    resize_positions,
)
from cion_jax.models.norms import BatchNorm, LayerNorm, at_least_float32
from cion_jax.models.ops import attend

ORDER = "pos_embed cls_token patch_embed network post_network norm conv norm1 v attn qkv kv q proj norm2 mlp fc1 fc2"


def unfold(x: Array) -> Array:
    """The 3x3 neighbourhoods, row by row, of each second position: (N, H, W, C) to (N, H/2, W/2, 9, C)."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (side - 1 + side % 2 for side in (height, width))  # from the first tap of an offset to its last

    def taps(down: int, right: int) -> Array:
        end = (batch, down + rows, right + columns, channels)
        return lax.slice(x, (0, down, right, 0), end, (1, 2, 2, 1))

    return jnp.stack([taps(down, right) for down in range(3) for right in range(3)], axis=3)


def fold(x: Array, like: Array) -> Array:
    """The transpose of `unfold`: overlapping neighbourhoods summed into a map."""
    (y,) = jax.linear_transpose(unfold, like)(x)
    return y


class OutlookAttention(nn.Module):
    """Positions of each 3x3 neighbourhood mixed by weights that are predicted, head by head, from the square inside."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _, height, width, channels = x.shape
        v = Linear(channels, bias=False, name="v")(x)
        near = unfold(v)
        near = near.reshape(*near.shape[:4], self.heads, -1)
        odd = ((0, height % 2), (0, width % 2))  # a mean at the edge of an odd map is over what there is
        square = nn.avg_pool(x, (2, 2), (2, 2), odd, count_include_pad=False)
        scores = Linear(81 * self.heads, name="attn")(square).reshape(*square.shape[:3], self.heads, 9, 9)
        mix = jax.nn.softmax(at_least_float32(scores) * near.shape[-1] ** -0.5, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("nhwkoi,nhwikc->nhwokc", mix, near)
        return Linear(channels, name="proj")(fold(mixed.reshape(*mixed.shape[:4], channels), v))


class Block(nn.Module):
    """Attention and MLP, each with a residual. Outlook attention takes maps, the ordinary one takes tokens."""

    heads: int
    outlook: bool
    drop: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        attention = OutlookAttention if self.outlook else partial(Attention, qkv_bias=False)
        y = attention(self.heads, name="attn")(LayerNorm(1e-5, name="norm1")(x))
        x += drop_path(self, y, self.drop, train)
        y = Mlp(3 * x.shape[-1], name="mlp")(LayerNorm(1e-5, name="norm2")(x))
        return x + drop_path(self, y, self.drop, train)


class ClassAttention(nn.Module):
    """What the first token finds among all."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, tokens, channels = x.shape
        q = Linear(channels, bias=False, name="q")(lax.slice_in_dim(x, 0, 1, axis=1)).reshape(batch, 1, self.heads, -1)
        kv = Linear(2 * channels, bias=False, name="kv")(x).reshape(batch, tokens, 2, self.heads, -1)
        k, v = kv.transpose(2, 0, 3, 1, 4)
        y = attend(q.swapaxes(1, 2), k, v, self.heads)
        return Linear(channels, name="proj")(y.reshape(batch, 1, channels))


class ClassBlock(nn.Module):
    """A block that changes only the first token."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        token = lax.slice_in_dim(x, 0, 1, axis=1) + ClassAttention(self.heads, name="attn")(
            LayerNorm(1e-5, name="norm1")(x)
        )
        token += Mlp(3 * x.shape[-1], name="mlp")(LayerNorm(1e-5, name="norm2")(token))
        return jnp.concatenate([token, lax.slice_in_dim(x, 1, None, axis=1)], axis=1)


class PatchEmbed(nn.Module):
    """The stem: three convolutions at half the resolution, then patches; the stride is 8."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for number, (kernel, stride) in enumerate([(7, 2), (3, 1), (3, 1)]):
            x = Conv(64, kernel, stride, name=f"conv.{3 * number}")(x)
            x = relu(BatchNorm(name=f"conv.{3 * number + 1}")(x, train))
        return Conv(self.features, 4, 4, padding=0, bias=True, name="proj")(x)


class Volo(nn.Module):
    """The network: stem, outlook blocks, three stages of transformer blocks, class attention; heads are 32 wide."""

    depths: tuple[int, int, int, int]
    width: int
    """Of the coarse map; the fine one has half of it."""
    image_size: tuple[int, int] = (256, 128)
    remat: bool = False
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        heads = self.width // 32
        rates = drop_rates(self.drop_path, self.depths)
        x = PatchEmbed(self.width // 2, name="patch_embed")(x, train)
        for number, rate in enumerate(rates[0]):
            x = block(heads // 2, True, rate, name=f"network.0.{number}")(x, train)
        keep(self, "stage1", x)
        x = Conv(self.width, 2, 2, padding=0, bias=True, name="network.1.proj")(x)
        shape = x.shape
        table = self.param("pos_embed", normal_02, (1, *(side // 16 for side in self.image_size), self.width))
        x += resize_positions(table, *shape[1:3]).astype(x.dtype)
        x = x.reshape(shape[0], -1, self.width)
        for stage in (2, 3, 4):  # network.1 was the step down, so stages 2 to 4 are network.2 to network.4
            for number, rate in enumerate(rates[stage - 1]):
                x = block(heads, False, rate, name=f"network.{stage}.{number}")(x, train)
            keep(self, f"stage{stage}", x.reshape(shape))
        token = self.param("cls_token", normal_02, (1, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (shape[0], 1, self.width)), x], axis=1)
        for number in range(2):
            x = maybe_remat(ClassBlock, self.remat)(heads, name=f"post_network.{number}")(x, train)
        keep(self, "tokens", x)
        return LayerNorm(1e-5, name="norm")(lax.index_in_dim(x, 0, 1, keepdims=False))


VARIANTS = {
    "volo_d1": Volo((4, 4, 8, 2), 384),
    "volo_d2": Volo((6, 4, 10, 4), 512),
    "volo_d3": Volo((8, 8, 16, 4), 512),
}
