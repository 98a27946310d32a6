"""The zoo's ResNets in plain PyTorch, which the benchmarks of pre-training and of fine-tuning share.

Modules are named as in the published state_dicts, so weights that we export load strictly. Images are (N, 3, H, W).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cion_jax.errors import UserError


def normed(conv: nn.Conv2d, relu: bool = False) -> list[nn.Module]:
    """A convolution, its BatchNorm and perhaps a ReLU."""
    return [conv, nn.BatchNorm2d(conv.out_channels), *[nn.ReLU(inplace=True)] * relu]


class IBN(nn.Module):
    """The first half of the channels through InstanceNorm, the other through BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half = width // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(width - self.half)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.IN(x[:, : self.half]), self.BN(x[:, self.half :])], 1)


class Bottleneck(nn.Module):
    """ResNet's: `width` is that of the 3x3 convolution."""

    def __init__(self, inputs: int, width: int, stride: int, ibn: bool) -> None:
        super().__init__()
        self.outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = IBN(width) if ibn else nn.BatchNorm2d(width)
        self.conv2, self.bn2 = normed(nn.Conv2d(width, width, 3, stride, 1, bias=False))
        self.conv3, self.bn3 = normed(nn.Conv2d(width, 4 * width, 1, bias=False))
        is_identity = stride == 1 and inputs == 4 * width
        shortcut = [] if is_identity else normed(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False))
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class BasicBlock(nn.Module):
    """That of ResNet18: two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int, ibn: bool) -> None:
        super().__init__()
        self.outputs = width
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = IBN(width) if ibn else nn.BatchNorm2d(width)
        self.conv2, self.bn2 = normed(nn.Conv2d(width, width, 3, 1, 1, bias=False))
        is_identity = stride == 1 and inputs == width
        shortcut = [] if is_identity else normed(nn.Conv2d(inputs, width, 1, stride, bias=False))
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """With a last stage that keeps its resolution, as usual in person re-identification."""

    def __init__(self, depths: Sequence[int], ibn: bool = False, width: int = 64, block: Any = Bottleneck) -> None:
        super().__init__()
        self.conv1, self.bn1 = normed(nn.Conv2d(3, width, 7, 2, 3, bias=False))
        self.outputs = width
        for stage, depth in enumerate(depths, 1):
            blocks = []
            for number in range(depth):
                stride = 2 if number == 0 and stage in (2, 3) else 1
                blocks.append(block(self.outputs, width << stage - 1, stride, ibn and stage < 4))
                self.outputs = blocks[-1].outputs
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


#: Constructors by the names of the zoo.
RESNETS: dict[str, partial[ResNet]] = {
    f"resnet{size}{'_ibn' * ibn}": partial(ResNet, depths=depths, ibn=ibn, block=block)
    for ibn in (False, True)
    for size, depths, block in (
        (18, (2, 2, 2, 2), BasicBlock),
        (50, (3, 4, 6, 3), Bottleneck),
        (101, (3, 4, 23, 3), Bottleneck),
        (152, (3, 8, 36, 3), Bottleneck),
    )
} | {"resnet10_half_ibn": partial(ResNet, depths=(1, 1, 1, 1), ibn=True, width=32, block=BasicBlock)}


def resnet(name: str, **sizes: Any) -> ResNet:
    """A ResNet by its name; `sizes` are arguments of `ResNet` that differ from those of the paper."""
    if name not in RESNETS:
        raise UserError(f"{name} is not among the ResNets that we have in PyTorch: {', '.join(RESNETS)}")
    return RESNETS[name](**sizes)
