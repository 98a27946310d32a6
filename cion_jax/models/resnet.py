"""ResNet (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016), plain and with IBN-a (Pan et al.,
"Two at Once", ECCV 2018), which mixes instance into batch normalisation to look past style.

As usual in person re-identification the last stage keeps its resolution: the total stride is 16, and 256x128 images end
as 16x8 maps. Names are torchvision's.

    basic block        x + norm(conv3(relu(norm(conv3(x)))))
    bottleneck block   x + norm(conv1(relu(norm(conv3(relu(norm(conv1(x))))))))
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from cion_jax.models.layers import Conv, kaiming_out, keep, maybe_remat, relu
from cion_jax.models.norms import IBN, BatchNorm, PooledNorm
from cion_jax.models.ops import max_pool

ORDER = "conv1 IN BN bn1 conv2 bn2 conv3 bn3 downsample layer1 layer2 layer3 layer4"


class Block(nn.Module):
    """A residual block. `width` is that of its 3x3 convolution."""

    width: int
    stride: int
    ibn: bool
    bottleneck: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.bottleneck:  # width, kernel and stride of each convolution
            convs = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
        else:
            convs = [(self.width, 3, self.stride), (self.width, 3, 1)]
        y = x
        for number, (features, kernel, stride) in enumerate(convs, 1):
            norm = IBN if self.ibn and number == 1 else BatchNorm
            y = Conv(features, kernel, stride, kernel_init=kaiming_out, name=f"conv{number}")(y)
            y = norm(name=f"bn{number}")(y, train)
            if number < len(convs):
                y = relu(y)
        if x.shape != y.shape:
            x = Conv(y.shape[-1], 1, self.stride, kernel_init=kaiming_out, name="downsample.0")(x)
            x = BatchNorm(name="downsample.1")(x, train)
        return relu(x + y)


class ResNet(nn.Module):
    """The network: a stem of stride 4, four stages, and the mean over the map; or a part of it, from map to map."""

    depths: tuple[int, ...]
    bottleneck: bool = True
    ibn: bool = False
    remat: bool = False
    width: int = 64
    begin: tuple[int, int] = (0, 0)
    end: tuple[int, int] = (6, 0)
    """Stage and number of the part's first block, and of that to stop in front of; stem and mean are (0, 0), (5, 0)."""

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        block = maybe_remat(Block, self.remat)
        if self.begin == (0, 0):
            # the published order is norm, ReLU, pool: the same values, of four times as many numbers
            norm = PooledNorm(self.width, name="bn1")
            x = Conv(self.width, 7, 2, kernel_init=kaiming_out, name="conv1")(x, norm.signs())
            x = relu(norm(x, train, max_pool))
        for stage, depth in enumerate(self.depths, 1):
            numbers = [number for number in range(depth) if self.begin <= (stage, number) < self.end]
            for number in numbers:
                stride = 2 if number == 0 and stage in (2, 3) else 1
                ibn = self.ibn and stage < 4
                x = block(self.width << stage - 1, stride, ibn, self.bottleneck, name=f"layer{stage}.{number}")(
                    x, train
                )
            x = keep(self, f"stage{stage}", x) if numbers else x
        return jnp.mean(x, axis=(1, 2)) if self.end > (5, 0) else x


_DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

_PAPER = {
    f"resnet{size}{'_ibn' * ibn}": ResNet(depths, bottleneck=size >= 50, ibn=bool(ibn))
    for ibn in (0, 1)
    for size, depths in _DEPTHS.items()
}
#: Not of the paper: two cores can train it in minutes.
SMALL = "resnet10_half_ibn"
VARIANTS = _PAPER | {SMALL: ResNet((1, 1, 1, 1), bottleneck=False, ibn=True, width=32)}
