"""ResNets and one each of four other families in plain PyTorch; `experiments.benchmarks.gpu` trains them beside ours.

Modules are named as in the published state_dicts, so weights that we export load strictly. Images are (N, 3, H, W).
Under autocast whatever goes from block to block stays in 16 bits, as it does in ours.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.benchmarks.torch_resnets import IBN, RESNETS, normed

WINDOW = 8

#: Of each of GhostNet's bottlenecks: kernel of its depthwise convolution, width inside and outside, gates, stride.
GHOSTS: tuple[tuple[tuple[int, int, int, bool, int], ...], ...] = (
    ((3, 16, 16, False, 1),),
    ((3, 48, 24, False, 2),),
    ((3, 72, 24, False, 1),),
    ((5, 72, 40, True, 2),),
    ((5, 120, 40, True, 1),),
    ((3, 240, 80, False, 2),),
    ((3, 200, 80, False, 1), *((3, 184, 80, False, 1),) * 2, (3, 480, 112, True, 1), (3, 672, 112, True, 1)),
    ((5, 672, 160, True, 2),),
    ((5, 960, 160, False, 1), (5, 960, 160, True, 1)) * 2,
)


class DropPath(nn.Module):
    """Leaves out a residual branch for a random share of the images, and scales it up for the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))


class LayerNorm(nn.LayerNorm):
    """In the type of its input: autocast would hand on float32, and double the traffic of all that follows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


class MapNorm(LayerNorm):
    """The same over the channels of maps (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (N, T, C); a mask is added to the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        values = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(values.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A transformer block around an attention, normalised before its branches."""

    def __init__(self, attention: nn.Module, width: int, epsilon: float, rate: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, epsilon)
        self.attn = attention
        self.norm2 = LayerNorm(width, epsilon)
        layers = {"fc1": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.drop = DropPath(rate)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x), mask))
        return x + self.drop(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """With a convolutional stem; positions are resampled for images of another size than `image_size`."""

    def __init__(self, width: int, heads: int, depth: int = 12, image_size: tuple[int, int] = (256, 128)) -> None:
        super().__init__()
        self.outputs = width
        self.grid = (image_size[0] // 16, image_size[1] // 16)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], width))
        stem: list[Any] = []
        for inputs, kernel, stride, norm in ((3, 7, 2, IBN), (64, 3, 1, IBN), (64, 3, 1, nn.BatchNorm2d)):
            conv = nn.Conv2d(inputs, 64, kernel, stride, kernel // 2, bias=False)
            stem += [conv, norm(64), nn.ReLU(inplace=True)]
        patches = {"conv": nn.Sequential(*stem), "proj": nn.Conv2d(64, width, 8, 8)}
        self.patch_embed = nn.Sequential(OrderedDict(patches))
        self.norm = LayerNorm(width, 1e-6)
        self.blocks = nn.Sequential(*(Block(Attention(width, heads), width, 1e-6) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        tokens = x.flatten(2).mT + self.positions(*x.shape[2:]).to(x.dtype)
        class_token = (self.cls_token + self.pos_embed[:, :1]).to(x.dtype).expand(len(x), -1, -1)
        return self.norm(self.blocks(torch.cat([class_token, tokens], 1))[:, 0])

    def positions(self, height: int, width: int) -> Tensor:
        """The table (1, T, C) for maps of a size; the 0.1 is part of the published models."""
        table = self.pos_embed[:, 1:].mT.unflatten(2, self.grid)
        if self.grid != (height, width):
            scale = ((height + 0.1) / self.grid[0], (width + 0.1) / self.grid[1])
            table = functional.interpolate(table, scale_factor=scale, mode="bicubic")
        return table.flatten(2).mT


def pad(x: Tensor, multiple: int) -> Tensor:
    """Maps (N, H, W, C) with zeros on the right and at the bottom, up to a multiple in height and width."""
    return functional.pad(x, (0, 0, 0, -x.shape[2] % multiple, 0, -x.shape[1] % multiple))


def windows(x: Tensor) -> Tensor:
    """The windows (N, down, across, WINDOW, WINDOW, ...) of padded maps (N, H, W, ...)."""
    return x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW)).transpose(2, 3)


def shift_mask(height: int, width: int, device: Any) -> Tensor:
    """(windows, tokens, tokens): -100 between tokens of a shifted map that are no neighbours in the map itself."""
    rows, columns = (torch.arange(size, device=device) >= size - WINDOW // 2 for size in (height, width))
    region = windows((2 * rows[:, None] + columns)[None]).flatten(3).flatten(0, 2)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)


class WindowAttention(Attention):
    """Attention inside the windows of maps (N, H, W, C): where there is a mask, windows shifted by half their side."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        # From token to token: so many rows down and columns right, counted from the farthest up and left.
        row = torch.arange(WINDOW**2) // WINDOW
        column = torch.arange(WINDOW**2) % WINDOW
        down, right = (axis[:, None] - axis + WINDOW - 1 for axis in (row, column))
        self.register_buffer("relative_position_index", down * (2 * WINDOW - 1) + right)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        padded = pad(x, WINDOW)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]
        if mask is not None:
            padded = padded.roll((-WINDOW // 2, -WINDOW // 2), (1, 2))
            bias = (bias + mask[:, None]).repeat(len(x), 1, 1, 1)
        windowed = windows(padded)
        y = super().forward(windowed.flatten(3, 4).flatten(0, 2), bias.to(x.dtype))
        y = y.reshape(windowed.shape).transpose(2, 3).reshape(padded.shape)  # a map again
        y = y if mask is None else y.roll((WINDOW // 2, WINDOW // 2), (1, 2))
        return y[:, : x.shape[1], : x.shape[2]]


class Merging(nn.Module):
    """Half the resolution, twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * width, 1e-5)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, 2)
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, -1)))


class Stage(nn.Module):
    """Swin's: blocks over maps (N, H, W, C), every second one shifted, and the way into the next stage."""

    def __init__(self, width: int, heads: int, rates: Sequence[float], last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(WindowAttention(width, heads), width, 1e-5, rate) for rate in rates)
        self.downsample = nn.Identity() if last else Merging(width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-size // WINDOW) * WINDOW for size in x.shape[1:3])
        mask = shift_mask(height, width, x.device)
        for number, block in enumerate(self.blocks):
            x = block(x, mask if number % 2 else None)
        return self.downsample(x)


class Swin(nn.Module):
    """The variant for detection. Images are whole patches of 4x4 pixels; drop path's rate rises to `drop_path`."""

    def __init__(self, width: int, depths: Sequence[int], heads: Sequence[int], drop_path: float = 0.0) -> None:
        super().__init__()
        last = len(depths) - 1
        self.outputs = width << last
        patches = OrderedDict(proj=nn.Conv2d(3, width, 4, 4), norm=MapNorm(width, 1e-5))
        self.patch_embed = nn.Sequential(patches)
        self.norm3 = LayerNorm(self.outputs, 1e-5)
        rates = torch.linspace(0, drop_path, sum(depths)).split(list(depths))
        stages = (Stage(width << n, heads[n], rate.tolist(), n == last) for n, rate in enumerate(rates))
        self.layers = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm3(self.layers(self.patch_embed(x).movedim(1, -1))).mean((1, 2))


class ConvNeXtBlock(nn.Module):
    """A residual block around a depthwise convolution; its linears work on channels in the last place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = LayerNorm(width, 1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).movedim(1, -1))
        y = self.pwconv2(functional.gelu(self.pwconv1(y))) * self.gamma.to(x.dtype)
        return x + y.movedim(-1, 1)


class ConvNeXt(nn.Module):
    """Each stage has twice the channels of the one before."""

    def __init__(self, depths: Sequence[int], width: int) -> None:
        super().__init__()
        widths = [width << stage for stage in range(len(depths))]
        halvings = [nn.Sequential(nn.Conv2d(3, width, 4, 4), MapNorm(width, 1e-6))]
        halvings += [nn.Sequential(MapNorm(size, 1e-6), nn.Conv2d(size, 2 * size, 2, 2)) for size in widths[:-1]]
        stages = [[ConvNeXtBlock(size) for _ in range(depth)] for size, depth in zip(widths, depths, strict=True)]
        self.downsample_layers = nn.ModuleList(halvings)
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)
        self.outputs = widths[-1]
        self.norm = LayerNorm(self.outputs, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.norm(x.mean((2, 3)))


def multiple_of_4(width: float) -> int:
    """The nearest multiple of 4, or the next one if that lost more than a tenth."""
    near = max(4, int(width + 2) // 4 * 4)
    return near + 4 if near < 0.9 * width else near


def depthwise(width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of each channel by itself."""
    return nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)


class Ghost(nn.Module):
    """Half the features by a 1x1 convolution, half from these by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, relu: bool) -> None:
        super().__init__()
        self.primary_conv = nn.Sequential(*normed(nn.Conv2d(inputs, outputs // 2, 1, bias=False), relu))
        self.cheap_operation = nn.Sequential(*normed(depthwise(outputs // 2, 3), relu))

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return torch.cat([x, self.cheap_operation(x)], 1)


class SqueezeExcite(nn.Module):
    """Channels scaled by gates that the mean over the map decides."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, hidden, 1)
        self.conv_expand = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.conv_expand(functional.relu(self.conv_reduce(x.mean((2, 3), keepdim=True)), inplace=True))
        return x * functional.hardsigmoid(gates)


class GhostBottleneck(nn.Module):
    """Two ghost modules with the striding convolution and the gates between them."""

    def __init__(self, inputs: int, kernel: int, inside: int, outside: int, gated: bool, stride: int) -> None:
        super().__init__()
        self.ghost1 = Ghost(inputs, inside, relu=True)
        self.ghost2 = Ghost(inside, outside, relu=False)
        self.conv_dw, self.bn_dw = normed(depthwise(inside, kernel, stride)) if stride > 1 else [nn.Identity()] * 2
        self.se = SqueezeExcite(inside, multiple_of_4(inside / 4)) if gated else nn.Identity()
        is_identity = stride == 1 and inputs == outside
        layers = [*normed(depthwise(inputs, kernel, stride)), *normed(nn.Conv2d(inputs, outside, 1, bias=False))]
        self.shortcut = nn.Sequential(*([] if is_identity else layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.se(self.bn_dw(self.conv_dw(self.ghost1(x))))) + self.shortcut(x)


class GhostNet(nn.Module):
    """A stem of stride 2, the table's bottlenecks, and 1280 features from the mean over a wide map."""

    outputs = 1280

    def __init__(self, width: float, table: Sequence[Sequence[tuple[int, int, int, bool, int]]] = GHOSTS) -> None:
        super().__init__()
        inputs = multiple_of_4(16 * width)
        groups = []
        self.conv_stem, self.bn1 = normed(nn.Conv2d(3, inputs, 3, 2, 1, bias=False))
        for rows in table:
            group = []
            for kernel, inside, outside, gated, stride in rows:
                widths = multiple_of_4(inside * width), multiple_of_4(outside * width)
                group.append(GhostBottleneck(inputs, kernel, *widths, gated, stride))
                inputs = widths[1]
            groups.append(nn.Sequential(*group))
        conv, norm = normed(nn.Conv2d(inputs, multiple_of_4(960 * width), 1, bias=False))
        last = nn.Sequential(OrderedDict(conv=conv, bn1=norm, relu=nn.ReLU(inplace=True)))
        self.blocks = nn.Sequential(*groups, nn.Sequential(last))
        self.conv_head = nn.Conv2d(conv.out_channels, self.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.bn1(self.conv_stem(x)), inplace=True))
        return functional.relu(self.conv_head(x.mean((2, 3), keepdim=True)), inplace=True).flatten(1)


#: Constructors by the names of the zoo, with what its settings train them with.
BACKBONES: dict[str, partial[Any]] = {
    **RESNETS,
    "vit_small": partial(ViT, 384, 6),
    "swin_tiny": partial(Swin, 96, (2, 2, 6, 2), (3, 6, 12, 24), drop_path=0.1),
    "convnext_tiny": partial(ConvNeXt, (3, 3, 9, 3), 96),
    "ghostnet_1_0": partial(GhostNet, 1.0),
}
