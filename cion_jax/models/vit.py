"""ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021) with the convolutional IBN stem of Luo et al.,
"Self-Supervised Pre-Training for Transformer-Based Person Re-Identification", arXiv 2021.

The stem halves the resolution, then patches of 8x8 become tokens: 16x8 of them for 256x128 images. The feature is the
class token after the last norm. Names are timm's, but for the stem.

    stem     proj8(relu(norm(conv3(relu(ibn(conv3(relu(ibn(conv7(x)))))))))
    tokens   [class, stem(x)] + positions
    block    y = x + attention(norm(x));  y + mlp(norm(y))
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from cion_jax.models.layers import (
    Attention,
    Conv,
    Mlp,
    drop_path,
    drop_rates,
    keep,
    maybe_remat,
    normal_02,
    relu,
    resize_positions,
)
from cion_jax.models.norms import IBN, BatchNorm, LayerNorm

ORDER = "cls_token pos_embed patch_embed conv IN BN blocks norm1 attn qkv proj norm2 mlp fc1 fc2 norm"


class Stem(nn.Module):
    """Three convolutions, then one token per patch of 16x16 pixels, still as a map."""

    width: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for number, (kernel, stride, norm) in enumerate([(7, 2, IBN), (3, 1, IBN), (3, 1, BatchNorm)]):
            x = Conv(64, kernel, stride, name=f"conv.{3 * number}")(x)
            x = relu(norm(name=f"conv.{3 * number + 1}")(x, train))
        return Conv(self.width, 8, 8, padding=0, bias=True, name="proj")(x)


class Block(nn.Module):
    """A transformer block, normalised before its branches. `rate` is that of drop path."""

    heads: int
    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = Attention(self.heads, name="attn")(LayerNorm(name="norm1")(x))
        x = x + drop_path(self, y, self.rate, train)
        y = Mlp(4 * x.shape[-1], name="mlp")(LayerNorm(name="norm2")(x))
        return x + drop_path(self, y, self.rate, train)


class ViT(nn.Module):
    """The network: stem, class token, positions, twelve blocks, and the class token."""

    width: int
    heads: int
    depth: int = 12
    image_size: tuple[int, int] = (256, 128)
    drop_path: float = 0.0
    remat: bool = False
    always_resample: bool = False
    """Resample positions for images of `image_size` too, as published fine-tuned weights expect it."""

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        grid = [size // 16 for size in self.image_size]
        first = self.param("cls_token", normal_02, (1, 1, self.width))
        table = self.param("pos_embed", normal_02, (1, 1 + grid[0] * grid[1], self.width))
        x = Stem(self.width, name="patch_embed")(x, train)
        batch, height, width, channels = x.shape
        positions = table[:, 1:].reshape(1, *grid, channels)
        positions = resize_positions(positions, height, width, always=self.always_resample)
        x += positions.astype(x.dtype)
        first = jnp.broadcast_to((first + table[:, :1]).astype(x.dtype), (batch, 1, channels))
        x = jnp.concatenate([first, x.reshape(batch, height * width, channels)], axis=1)
        block = maybe_remat(Block, self.remat)
        for number, rate in enumerate(drop_rates(self.drop_path, [self.depth])[0]):
            x = block(self.heads, rate, name=f"blocks.{number}")(x, train)
        x = keep(self, "tokens", x)
        return LayerNorm(name="norm")(lax.index_in_dim(x, 0, 1, keepdims=False))


VARIANTS = {
    "vit_tiny": ViT(192, 3),
    "vit_small": ViT(384, 6),
    "vit_base": ViT(768, 12),
}
