"""FastViT (Vasu et al., "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization", ICCV 2023):
convolutions with many branches while it trains and one when it is used, and attention on the smallest maps only. Names
are the original project's.

    mobileone(x)   norm(conv(x)) + norm(conv1(x)) + norm(x)    the latter two where kernel and shape allow
    large(x)       norm(dw7(x)) + norm(dw3(x))                 of stride 2
    mixer(x)       x + scale (mobileone(x) - norm(x))          depthwise
    ffn(x)         conv1(gelu(conv1(norm(dw7(x)))))

    block          y = mixer(x); y + scale ffn(y)              or, in the last stage of sa12 and sa24,
                   y = x + scale attention(norm(x)); y + scale ffn(y)
    downsample     gelu(mobileone(large(x)))
    position       x + dw7(x)                                  before a stage with attention

The fused form, for inference, has no norms: mobileone, large, mixer and position are one convolution each.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.models.fusing import Filter, Node, identity, layer, loaded, norm_before, normed, rewritten, scaled, summed
from cion_jax.models.layers import (
    Attention,
    Conv,
    Initializer,
    SqueezeExcite,
    drop_path,
    drop_rates,
    gelu,
    keep,
    maybe_remat,
    normal_02,
    torch_default,
)
from cion_jax.models.norms import BatchNorm

ORDER = (
    "patch_embed network layer_scale layer_scale_1 layer_scale_2 norm token_mixer mixer convffn qkv proj pe "
    "lkb_origin small_conv lkb_reparam conv_exp se reduce expand rbr_skip rbr_conv rbr_scale reparam_conv "
    "conv bn fc1 fc2"
)


class ConvNorm(nn.Module):
    """A convolution and its norm, which fused is in the convolution's bias and kernel."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    kernel_init: Initializer = torch_default
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        conv = partial(Conv, self.features, self.kernel, self.stride, groups=self.groups, kernel_init=self.kernel_init)
        x = conv(bias=self.fused, name="conv")(x)
        return x if self.fused else BatchNorm(name="bn")(x, train)


class MobileOne(nn.Module):
    """Up to three branches, summed: the kernel, 1x1, and the input itself. Fused, a single convolution."""

    features: int
    kernel: int
    stride: int = 1
    depthwise: bool = True
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        groups = x.shape[-1] if self.depthwise else 1
        if self.fused:
            return Conv(self.features, self.kernel, self.stride, groups=groups, bias=True, name="reparam_conv")(x)
        y = ConvNorm(self.features, self.kernel, self.stride, groups, name="rbr_conv.0")(x, train)
        if self.kernel > 1:
            y += ConvNorm(self.features, 1, self.stride, groups, name="rbr_scale")(x, train)
        if x.shape == y.shape:
            y += BatchNorm(name="rbr_skip")(x, train)
        return y


class LargeKernel(nn.Module):
    """Depthwise 7x7 and 3x3 of stride 2, summed. Fused, the 7x7 alone."""

    features: int
    fused: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        groups = x.shape[-1]
        if self.fused:
            return Conv(self.features, 7, 2, groups=groups, bias=True, name="lkb_reparam")(x)
        large = ConvNorm(self.features, 7, 2, groups, name="lkb_origin")(x, train)
        return large + ConvNorm(self.features, 3, 2, groups, name="small_conv")(x, train)


class RepMixer(nn.Module):
    """What a map's neighbourhoods add to it. Fused, one depthwise convolution."""

    fused: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        channels = x.shape[-1]
        if self.fused:
            return Conv(channels, 3, groups=channels, bias=True, name="reparam_conv")(x)
        mixed = MobileOne(channels, 3, name="mixer")(x, train) - BatchNorm(name="norm.rbr_skip")(x, train)
        return x + _scaled(self, "layer_scale", mixed)


class Position(nn.Module):
    """Adds to each place what tells where it is: a depthwise 7x7. Fused, that and the sum are one."""

    fused: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        name = "reparam_conv" if self.fused else "pe"
        y = Conv(x.shape[-1], 7, groups=x.shape[-1], bias=True, name=name)(x)
        return y if self.fused else x + y


class Block(nn.Module):
    """Mixes positions, by convolution or attention, then channels. `rate` is that of drop path."""

    attention: bool
    rate: float
    fused: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        channels = x.shape[-1]
        fused = self.fused
        if self.attention:
            y = x if fused else BatchNorm(name="norm")(x, train)
            tokens = y.reshape(x.shape[0], -1, channels)
            y = Attention(channels // 32, qkv_bias=fused, name="token_mixer")(tokens).reshape(x.shape)
            x += drop_path(self, _scaled(self, "layer_scale_1", y), self.rate, train)
        else:
            x = RepMixer(fused, name="token_mixer")(x, train)
        y = ConvNorm(channels, 7, 1, channels, normal_02, fused, name="convffn.conv")(x, train)
        linear = partial(Conv, bias=True, kernel_init=normal_02, bias_init=nn.initializers.zeros)
        y = linear(channels, name="convffn.fc2")(gelu(linear(4 * channels, name="convffn.fc1")(y)))
        y = _scaled(self, "layer_scale_2" if self.attention else "layer_scale", y)
        return x + drop_path(self, y, self.rate, train)


def _scaled(module: nn.Module, name: str, x: Array) -> Array:
    scale = module.param(name, nn.initializers.constant(1e-5), (x.shape[-1], 1, 1))
    return x * scale[:, 0, 0].astype(x.dtype)


class FastViT(nn.Module):
    """The network: a stem of stride 4, four stages, a last widening, and the mean over the map."""

    depths: tuple[int, ...]
    attention: bool
    width: int = 64
    drop_path: float = 0.0
    fused: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        fused = self.fused
        width = self.width
        x = gelu(MobileOne(width, 3, 2, depthwise=False, fused=fused, name="patch_embed.0")(x, train))
        x = gelu(MobileOne(width, 3, 2, fused=fused, name="patch_embed.1")(x, train))
        x = gelu(MobileOne(width, 1, depthwise=False, fused=fused, name="patch_embed.2")(x, train))
        rates = drop_rates(self.drop_path, self.depths)
        last = len(self.depths) - 1
        for stage, depth in enumerate(self.depths):
            place = 2 * stage
            attention = self.attention and stage == last
            if stage:
                width *= 2
                down = f"network.{place - 1}.proj"
                x = LargeKernel(width, fused, name=f"{down}.0")(x, train)
                x = gelu(MobileOne(width, 1, depthwise=False, fused=fused, name=f"{down}.1")(x, train))
            if attention:
                x = Position(fused, name=f"network.{place}")(x)
                place += 1
            for number in range(depth):
                x = block(attention, rates[stage][number], fused, name=f"network.{place}.{number}")(x, train)
            x = keep(self, f"stage{stage + 1}", x)
        x = MobileOne(2 * width, 3, fused=fused, name="conv_exp")(x, train)
        x = keep(
            self, "expanded", gelu(SqueezeExcite(width // 8, nn.sigmoid, ("reduce", "expand"), name="conv_exp.se")(x))
        )
        return jnp.mean(x, axis=(1, 2))


def fuse(variables: dict[str, Any]) -> dict[str, Any]:
    """Variables of the fused form, from trained ones."""
    return rewritten(variables, _fused)


def _fused(node: Node) -> Node:
    match node:
        case {"conv": _, "bn": _}:
            return {"conv": layer(_conv_norm(node))}
        case {"rbr_conv.0": _}:
            return {"reparam_conv": layer(_mobileone(node))}
        case {"lkb_origin": large, "small_conv": small}:
            return {"lkb_reparam": layer(summed(_conv_norm(large), _conv_norm(small)))}
        case {"mixer": mixer, "norm.rbr_skip": norm, "layer_scale": scale}:
            same = identity(1, len(scale))
            branches = (same, scaled(_mobileone(mixer), scale), scaled(normed(same, norm), -scale))
            return {"reparam_conv": layer(summed(*branches))}
        case {"pe": conv}:
            return {"reparam_conv": layer(summed(loaded(conv), identity(1, len(conv["bias"]))))}
        case {"norm": norm, "token_mixer": mixer, **others}:
            qkv = layer(norm_before(norm, loaded(mixer["qkv"])))
            return {**others, "token_mixer": {**mixer, "qkv": qkv}}
    return node


def _conv_norm(node: Node) -> Filter:
    return loaded(node["conv"], node["bn"])


def _mobileone(node: Node) -> Filter:
    branches = [_conv_norm(node[name]) for name in ("rbr_conv.0", "rbr_scale") if name in node]
    if "rbr_skip" in node:
        branches.append(normed(identity(*branches[0][0].shape[2:]), node["rbr_skip"]))
    return summed(*branches)


VARIANTS = {
    "fastvit_s12": FastViT((2, 2, 6, 2), attention=False),
    "fastvit_sa12": FastViT((2, 2, 6, 2), attention=True),
    "fastvit_sa24": FastViT((4, 4, 12, 4), attention=True),
}
