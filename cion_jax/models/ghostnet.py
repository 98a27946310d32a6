"""GhostNet (Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020).

Half the maps of a layer are computed by a 1x1 convolution; the other half are its ghosts, made from the first by a
cheap depthwise convolution. Strides add up to 32, and 256x128 images end as 8x4 maps. Names are timm's.

    ghost(x)                  p = relu(norm(conv1(x)));  [p, relu(norm(dw3(p)))]
    bottleneck, stride 1      x + ghost'(se(ghost(x)))                          (ghost' has no ReLU)
    bottleneck, stride 2      norm(conv1(norm(dw(x)))) + ghost'(se(norm(dw(ghost(x)))))
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.models.layers import Conv, SqueezeExcite, keep, maybe_remat, relu
from cion_jax.models.norms import BatchNorm

ORDER = (
    "conv_stem conv bn1 blocks ghost1 primary_conv cheap_operation conv_dw bn_dw se conv_reduce conv_expand ghost2 "
    "shortcut conv_head"
)

#: Of each bottleneck: kernel of its depthwise convolution, width inside, width outside, squeeze-and-excitation, stride.
Table = tuple[tuple[tuple[int, int, int, bool, int], ...], ...]
TABLE: Table = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    (
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1)),
)


def _multiple_of_4(width: float) -> int:
    """The nearest multiple of 4, or the next one if that lost more than a tenth."""
    near = max(4, int(width + 2) // 4 * 4)
    return near + 4 if near < 0.9 * width else near


class Ghost(nn.Module):
    """Half the features by a 1x1 convolution, half from these by a depthwise one."""

    features: int
    relu: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        half = self.features // 2
        x = BatchNorm(name="primary_conv.1")(Conv(half, name="primary_conv.0")(x), train)
        x = relu(x) if self.relu else x
        ghosts = Conv(half, 3, groups=half, name="cheap_operation.0")(x)
        ghosts = BatchNorm(name="cheap_operation.1")(ghosts, train)
        return jnp.concatenate([x, relu(ghosts) if self.relu else ghosts], axis=-1)


class Bottleneck(nn.Module):
    """Two ghost modules, wide inside, with the striding convolution and the gates between them."""

    kernel: int
    inside: int
    outside: int
    gated: bool
    stride: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = Ghost(self.inside, relu=True, name="ghost1")(x, train)
        if self.stride > 1:
            y = Conv(self.inside, self.kernel, self.stride, groups=self.inside, name="conv_dw")(y)
            y = BatchNorm(name="bn_dw")(y, train)
        if self.gated:
            y = SqueezeExcite(_multiple_of_4(self.inside / 4), name="se")(y)
        y = Ghost(self.outside, relu=False, name="ghost2")(y, train)
        if x.shape != y.shape:
            x = Conv(x.shape[-1], self.kernel, self.stride, groups=x.shape[-1], name="shortcut.0")(x)
            x = Conv(self.outside, name="shortcut.2")(BatchNorm(name="shortcut.1")(x, train))
            x = BatchNorm(name="shortcut.3")(x, train)
        return x + y


class GhostNet(nn.Module):
    """The network: a stem of stride 2, the table's bottlenecks, and 1280 features from the mean over a wide map."""

    width: float
    remat: bool = False
    table: Table = TABLE

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Bottleneck, self.remat)
        x = Conv(_multiple_of_4(16 * self.width), 3, 2, name="conv_stem")(x)
        x = relu(BatchNorm(name="bn1")(x, train))
        stage = 1
        for group, rows in enumerate(self.table):
            for number, (kernel, inside, outside, gated, stride) in enumerate(rows):
                widths = _multiple_of_4(inside * self.width), _multiple_of_4(outside * self.width)
                x = block(kernel, *widths, gated, stride, name=f"blocks.{group}.{number}")(x, train)
                stage += stride > 1
            keep(self, f"stage{stage}", x)  # of several groups at one resolution the last one stays
        x = Conv(_multiple_of_4(960 * self.width), name=f"blocks.{len(self.table)}.0.conv")(x)
        x = keep(self, "final", relu(BatchNorm(name=f"blocks.{len(self.table)}.0.bn1")(x, train)))
        x = Conv(1280, bias=True, name="conv_head")(x.mean((1, 2), keepdims=True))
        return relu(x.squeeze((1, 2)))


VARIANTS = {
    "ghostnet_0_5": GhostNet(0.5),
    "ghostnet_1_0": GhostNet(1.0),
    "ghostnet_1_3": GhostNet(1.3),
}
