"""The three methods of fine-tuning in plain PyTorch, which load weights that we export, and are timed beside ours.

It shares no code with `cion_jax.finetune`, so that agreement says something: networks are written from the published
state_dicts, whose names and order they have, and losses and optimizers from the published formulas. In training a
network returns what its losses need, otherwise the feature that the published code searches with. Initial weights are
PyTorch's own; nobody needs those of the published code here.

Precision is as in ours: under autocast whatever goes from block to block is in 16 bits, and pooling with an exponent,
necks, losses and update are in float32. Everything works in float64 too.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cion_jax.config import MEAN, STD, BnneckOptimization, ClusterContrastOptimization, MgnOptimization
from cion_jax.finetune.schedules import BnneckValues, MgnValues
from experiments.benchmarks.torch_backbones import ViT
from experiments.benchmarks.torch_resnets import ResNet, resnet

#: The heads of each of MGN's branches: that of the whole map, and one for each strip, from top to bottom.
BRANCHES = {"b1": ("b1",), "b2": ("b2", "b21", "b22"), "b3": ("b3", "b31", "b32", "b33")}
#: The same heads in the order of their parts of MGN's feature.
HEADS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
#: The heads whose features each triplet loss puts together; it has the name of the last.
COMPARED = (("b1",), ("b2",), ("b3",), ("b21", "b22"), ("b31", "b32", "b33"))
#: MGN's parts that come from the backbone and are frozen at the start.
PRETRAINED = ("backbone", "b1", "b2", "b3")

Losses = dict[str, Tensor]


def stem(network: ResNet) -> list[nn.Module]:
    """What comes before the stages, as layers of a Sequential."""
    return [network.conv1, network.bn1, nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]


def wide(x: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_shift(norm: nn.Module) -> nn.Module:
    """A BatchNorm whose shift is in the state_dict, but never learns."""
    norm.get_parameter("bias").requires_grad_(False)
    return norm


class GeM(nn.Module):
    """Mean over the map with a trained exponent: maps (N, C, H, W) to (N, C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, maps: Tensor) -> Tensor:
        powers = wide(maps).clamp(min=1e-6).pow(self.p)
        return powers.mean((2, 3), keepdim=True).pow(1 / self.p)


class BNNeck(nn.Module):
    """A backbone, a BatchNorm and a classifier. In training: logits and features; else the features, which come before
    the BatchNorm."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.base = backbone
        self.classifier = nn.Linear(width, classes, bias=False)
        self.bottleneck = without_shift(nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Any:
        features = wide(self.base(x))
        if not self.training:
            return features
        with torch.autocast(x.device.type, enabled=False):
            return self.classifier(self.bottleneck(features)), features


def bnneck(backbone: nn.Module, width: int, classes: int) -> BNNeck:
    """The network of TransReID's baseline on any backbone, whose features have a width.

    Published fine-tuning gives ViT its image size as a list, which equals no tuple; so the table of positions is
    resampled at its own size too, and the backbone given here is made to do so.
    """
    if isinstance(backbone, ViT):
        backbone.grid = list(backbone.grid)  # type: ignore[assignment]
    return BNNeck(backbone, width, classes)


class Head(nn.Module):
    """One of MGN's: the feature (N, 256) of a map or of a strip of it, and the rows that a loss compares it with."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.pool_layer = GeM()
        self.bottleneck = nn.Sequential(nn.Conv2d(channels, 256, 1, bias=False), without_shift(nn.BatchNorm2d(256)))
        self.classifier = nn.Linear(256, classes, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return self.bottleneck(self.pool_layer(maps)).flatten(1)


class MGN(nn.Module):
    """A trunk, three branches of which each has a BatchNorm, and eight heads.

    In training: the features (N, 256) by the names of the heads; else all of them (N, 2048), one after the other.
    """

    def __init__(self, network: ResNet, classes: int) -> None:
        super().__init__()
        for name, values in (("pixel_mean", MEAN), ("pixel_std", STD)):
            self.register_buffer(name, torch.tensor([255 * value for value in values]).view(1, 3, 1, 1))
        self.backbone = nn.Sequential(*stem(network), network.layer1, network.layer2, network.layer3[0])
        branch = nn.Sequential(nn.Sequential(*network.layer3[1:]), network.layer4)
        for name, heads in BRANCHES.items():
            self.add_module(name, copy.deepcopy(branch))
            for head in heads:
                self.add_module(f"{head}_head", Head(network.outputs, classes))
        for name in BRANCHES:
            self.add_module(f"heads_extra_bn_{name}", nn.BatchNorm2d(network.outputs))

    def forward(self, grey: Tensor) -> Any:
        """Of images with values 0 to 255, as the published network takes them."""
        return self.of_normalised((grey - self.pixel_mean) / self.pixel_std)

    def of_normalised(self, x: Tensor) -> Any:
        """The same of images that are normalised already, as our pipeline hands them on."""
        trunk = self.backbone(x)
        features = {}
        for branch, (whole, *parts) in BRANCHES.items():
            maps = self.get_submodule(f"heads_extra_bn_{branch}")(self.get_submodule(branch)(trunk))
            strips = maps.chunk(len(parts), 2) if parts else ()
            for head, piece in zip((whole, *parts), (maps, *strips), strict=True):
                features[head] = self.get_submodule(f"{head}_head")(piece)
        return features if self.training else torch.cat([features[head] for head in HEADS], 1)

    def freeze(self, frozen: bool) -> None:
        """Trunk and branches use and keep their running statistics, and have no gradients; or they learn again."""
        for name in PRETRAINED:
            self.get_submodule(name).train(not frozen).requires_grad_(not frozen)


def mgn(name: str, classes: int, **sizes: Any) -> MGN:
    """FastReID's MGN on a ResNet by its name."""
    return MGN(resnet(name, **sizes), classes)


class Encoder(nn.Module):
    """A ResNet, pooling and a BatchNorm: unit features, in training too."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.base = nn.Sequential(*stem(network), network.layer1, network.layer2, network.layer3, network.layer4)
        self.gap = GeM()
        self.feat_bn = without_shift(nn.BatchNorm1d(network.outputs))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.base(x)
        with torch.autocast(x.device.type, enabled=False):
            return functional.normalize(self.feat_bn(self.gap(maps).flatten(1)))


def cluster_contrast(name: str, **sizes: Any) -> Encoder:
    """The encoder of cluster contrast on a ResNet by its name."""
    return Encoder(resnet(name, **sizes))


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross entropy where each of the other classes has smoothing / (C - 1); PyTorch's own smooths over all C."""
    classes = logits.shape[1]
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing * classes / (classes - 1))


def triplet_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Mean of log(1 + exp(p - n)): each image's distance from the farthest of its identity, and the nearest other."""
    lengths = features.square().sum(1)
    squared = lengths[:, None] + lengths - 2 * features @ features.T
    distances = squared.clamp(min=1e-12).sqrt()
    is_same = labels[:, None] == labels
    positives = distances.masked_fill(~is_same, 0).max(1).values
    negatives = distances.masked_fill(is_same, torch.inf).min(1).values
    return functional.softplus(positives - negatives).mean()


def circle_logits(features: Tensor, rows: Tensor, labels: Tensor, margin: float = 0.35, scale: float = 64.0) -> Tensor:
    """Cosines in relation to the margin, each with a weight through which no gradient goes."""
    cosine = functional.normalize(features) @ functional.normalize(rows).T
    still = cosine.detach()
    own = (1 + margin - still).relu() * (cosine - (1 - margin))
    others = (still + margin).relu() * (cosine - margin)
    is_own = labels[:, None] == torch.arange(len(rows), device=labels.device)
    return scale * torch.where(is_own, own, others)


def mgn_losses(network: MGN, features: dict[str, Tensor], labels: Tensor) -> Losses:
    """An eighth of the cross entropy of each head, a fifth of each triplet loss."""
    losses = {}
    for name, feature in features.items():
        logits = circle_logits(feature, network.get_parameter(f"{name}_head.classifier.weight"), labels)
        losses[f"cls_{name}"] = smoothed_cross_entropy(logits, labels) / len(HEADS)
    for names in COMPARED:
        together = torch.cat([features[name] for name in names], 1)
        losses[f"triplet_{names[-1]}"] = triplet_loss(together, labels) / len(COMPARED)
    return losses


class ClusterMemory:
    """A unit row for each cluster, which follows features; rows of zeros are no clusters.

    Args:
        rows: (clusters, width), which changes in place.
        hard: Follow the least similar of a cluster's images alone; otherwise all of them, in the batch's order.
        momentum: The share of a row that stays.
        temperature: What similarities are divided by.
    """

    def __init__(self, rows: Tensor, hard: bool = True, momentum: float = 0.2, temperature: float = 0.05) -> None:
        self.rows = rows
        self.hard = hard
        self._momentum = momentum
        self._temperature = temperature

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy of features (B, width), whose labels are numbers of rows."""
        logits = functional.normalize(features) @ self.rows.T / self._temperature
        return functional.cross_entropy(logits.masked_fill(~self.rows.any(1), -torch.inf), labels)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Let the rows follow; call it after the backward pass, which needs them as they were."""
        features = functional.normalize(features)
        if not self.hard:
            for feature, label in zip(features, labels.tolist(), strict=True):
                self.rows[label] = self._followed(self.rows[label], feature)
            return
        is_own = torch.arange(len(self.rows), device=labels.device)[:, None] == labels
        similarity = (self.rows @ features.T).masked_fill(~is_own, torch.inf)
        followed = self._followed(self.rows, features[similarity.argmin(1)])
        self.rows.copy_(torch.where(is_own.any(1, keepdim=True), followed, self.rows))

    def _followed(self, row: Tensor, feature: Tensor) -> Tensor:
        return functional.normalize(torch.lerp(feature, row, self._momentum), dim=-1)


class Step:
    """A network and its optimizer: called with a batch and rates it does one step, and returns the losses by name.

    Images (B, H, W, 3) are augmented and normalised as for ours, labels (B,) are numbers of classes.

    Args:
        network: At its start, on its device.
        optimizer: Of its parameters, with a group for each of the rates.
        half: Let the network compute in bfloat16 where ours does.
        compiled: Make one graph of network and losses by torch.compile.
    """

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, half: bool = False, compiled: bool = False
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).train()
        self.optimizer = optimizer
        self._half = half
        self._forward = torch.compile(self._run, dynamic=False, fullgraph=True) if compiled else self._run

    def __call__(self, images: Tensor, labels: Tensor, values: Any) -> Losses:
        self.before(values)
        for group, rate in zip(self.optimizer.param_groups, self.rates(values), strict=True):
            group["lr"] = float(rate)
        losses, outputs = self._forward(images, labels)
        torch.stack([*losses.values()]).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.after(outputs, labels)
        return {name: loss.detach() for name, loss in losses.items()}

    def _run(self, images: Tensor, labels: Tensor) -> tuple[Losses, Any]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._half):
            outputs = self.outputs(images.permute(0, 3, 1, 2))  # as a map NCHW channels last already
        return self.losses(outputs, labels), outputs

    def before(self, values: Any) -> None:
        """What is done first."""

    def rates(self, values: Any) -> list[Any]:
        """The learning rate of each of the optimizer's groups."""
        return [values.learning_rate]

    def outputs(self, images: Tensor) -> Any:
        """What the network makes of images (B, 3, H, W)."""
        return self.network(images)

    def losses(self, outputs: Any, labels: Tensor) -> Losses:
        """What is added up to the loss."""
        raise NotImplementedError

    def after(self, outputs: Any, labels: Tensor) -> None:
        """What is done last."""


class BnneckStep(Step):
    """Cross entropy and triplet loss; SGD, in which biases have a rate of their own."""

    def __init__(self, network: BNNeck, settings: BnneckOptimization, **options: bool) -> None:
        trained = {key: each for key, each in network.named_parameters() if each.requires_grad}
        biases = [each for key, each in trained.items() if "bias" in key]  # Swin's tables of positions too
        weights = [each for key, each in trained.items() if "bias" not in key]
        super().__init__(network, sgd(settings.weight_decay, weights, biases), **options)

    def losses(self, outputs: tuple[Tensor, Tensor], labels: Tensor) -> Losses:
        logits, features = outputs
        return {"cross_entropy": functional.cross_entropy(logits, labels), "triplet": triplet_loss(features, labels)}

    def rates(self, values: BnneckValues) -> list[Any]:
        return [values.learning_rate, values.bias_learning_rate]


class MgnStep(Step):
    """The thirteen losses; Adam, which passes over what is frozen, its moments and count of steps as well."""

    network: MGN

    def __init__(self, network: MGN, settings: MgnOptimization, **options: bool) -> None:
        trained = [each for each in network.parameters() if each.requires_grad]
        optimizer = torch.optim.Adam(trained, weight_decay=settings.weight_decay, fused=True)
        super().__init__(network, optimizer, **options)

    def before(self, values: MgnValues) -> None:
        self.network.freeze(bool(values.frozen))

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        return self.network.of_normalised(images)

    def losses(self, outputs: dict[str, Tensor], labels: Tensor) -> Losses:
        return mgn_losses(self.network, outputs, labels)


class ClusterContrastStep(Step):
    """The memory's loss; SGD. The memory follows after each step."""

    def __init__(
        self, network: Encoder, memory: ClusterMemory, settings: ClusterContrastOptimization, **options: bool
    ) -> None:
        trained = [each for each in network.parameters() if each.requires_grad]
        super().__init__(network, sgd(settings.weight_decay, trained), **options)
        self.memory = memory

    def losses(self, outputs: Tensor, labels: Tensor) -> Losses:
        return {"contrast": self.memory.loss(outputs, labels)}

    def after(self, outputs: Tensor, labels: Tensor) -> None:
        self.memory.update(outputs, labels)


def sgd(weight_decay: float, *groups: list[nn.Parameter]) -> torch.optim.Optimizer:
    """With momentum 0.9, and decay that is part of the gradient."""
    rows = [{"params": group} for group in groups]
    return torch.optim.SGD(rows, momentum=0.9, weight_decay=weight_decay, fused=True)
