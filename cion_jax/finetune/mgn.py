"""MGN (Wang et al., "Learning Discriminative Features with Multiple Granularities for Person Re-Identification", ACM MM
2018) on a ResNet, with GeM pooling and circle softmax.

    trunk      stem, stages 1 and 2, and the first block of stage 3
    branches   the rest of stages 3 and 4, three times; then a BatchNorm without ReLU
    heads      over the whole map of a branch, and over each of its 0, 2 or 3 strips:
               feature = neck(W gem(map)), 256 wide; a row for each class

Names of variables are those of FastReID's weights. Those of the published code also hold `pixel_mean` and `pixel_std`:
it normalises in the network, whereas here images are normalised before, as for all backbones.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import batch_norm, init_norm, neck
from cion_jax.finetune.losses import circle_logits, cross_entropy, hardest_distances, triplet_loss
from cion_jax.finetune.network import Finetuned, Losses
from cion_jax.finetune.pooling import gem, init_exponent
from cion_jax.finetune.sequential import STEM, apply_part, stage_names, take_part
from cion_jax.models.layers import kaiming_out, torch_default
from cion_jax.models.zoo import Backbone, Variables

#: The heads of each branch: that of the whole map, and one for each strip, from top to bottom.
BRANCHES = {"b1": ("b1",), "b2": ("b2", "b21", "b22"), "b3": ("b3", "b31", "b32", "b33")}
#: The heads in the order of their parts of the feature.
HEADS = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
#: Numbers in a head's part of the feature.
WIDTH = 256
#: The order in which PyTorch registers what is around the backbone's parts; the backbone's own order follows.
ORDER = (
    "backbone b1 b1_head b2 b2_head b21_head b22_head b3 b3_head b31_head b32_head b33_head "
    "heads_extra_bn_b1 heads_extra_bn_b2 heads_extra_bn_b3 pool_layer p bottleneck classifier"
)
_TRUNK = {**STEM, **stage_names(1, 4), **stage_names(2, 5), "layer3.0": "6"}
_BRANCH = {**stage_names(3, 0, first=1), **stage_names(4, 1)}


@dataclass(frozen=True)
class MGN(Finetuned):
    """The network without its weights; `mgn` makes it."""

    method = "mgn"
    own_order = ORDER
    trunk: Backbone
    branch: Backbone
    classes: int

    def width(self, image_size: tuple[int, int]) -> int:
        """Numbers in a feature; a size of images that leaves a strip empty is refused."""
        height, columns = image_size
        most = max(map(len, BRANCHES.values())) - 1
        rows = jnp.zeros((1, -(-height // 16), 1, 1))
        if not all(strip.size for strip in strips(rows, most)):
            raise UserError(f"MGN cannot cut images of {height}x{columns} in {most}; take higher ones, say 384x128")
        return len(HEADS) * WIDTH

    def begin(self, key: Array, body: Variables) -> Variables:
        """Variables with the weights of a pre-trained backbone, of which each branch has a copy, and fresh heads."""
        channels = self.backbone.width(self.image_size)
        parts = {"backbone": take_part(body, _TRUNK)}
        for branch in BRANCHES:
            parts[branch] = jax.tree.map(jnp.copy, take_part(body, _BRANCH))
            parts[f"heads_extra_bn_{branch}"] = dict(zip(("params", "batch_stats"), init_norm(channels), strict=True))
        for head, head_key in zip(HEADS, jax.random.split(key, len(HEADS)), strict=True):
            parts[f"{head}_head"] = _init_head(head_key, channels, self.classes)
        return {name: {part: tree[name] for part, tree in parts.items()} for name in ("params", "batch_stats")}

    def apply(self, variables: Variables, images: Array, *, train: bool = False, frozen: bool = False) -> Any:
        """Features (N, 2048) of images (N, H, W, 3): one part after the other, not normalised.

        With `train` batch statistics are used, and the result is a pair: the features (N, 256) of each head, and the
        variables with running statistics moved on. If `frozen` as well, trunk and branches use and keep their running
        statistics, and no gradient reaches them.
        """
        params = variables["params"]
        moved: dict[str, Any] = {}
        features: dict[str, Array] = {}

        def run(part: str, model: Backbone, names: Any, x: Array) -> Array:
            own = {name: tree[part] for name, tree in variables.items()}
            y, moved[part] = apply_part(model, names, own, x, train and not frozen)
            return lax.stop_gradient(y) if frozen else y

        def normalised(part: str, x: Array) -> Array:
            y, moved[part] = batch_norm(params[part], variables["batch_stats"][part], x, train)
            return y

        trunk_BxHxWxC = run("backbone", self.trunk, _TRUNK, images)
        for branch, (whole, *parts) in BRANCHES.items():
            maps_BxHxWxC = normalised(f"heads_extra_bn_{branch}", run(branch, self.branch, _BRANCH, trunk_BxHxWxC))
            for head, piece in zip((whole, *parts), (maps_BxHxWxC, *strips(maps_BxHxWxC, len(parts))), strict=True):
                name = f"{head}_head"
                features[head], moved[name] = _apply_head(params[name], variables["batch_stats"][name], piece, train)
        if train:
            return features, variables | {"batch_stats": moved}
        return jnp.concatenate([features[head] for head in HEADS], axis=1)

    def losses(
        self, variables: Variables, images: Array, labels_B: Array, *, memory_CxD: Any, key: Array, frozen: bool
    ) -> Losses:
        """The thirteen of `losses`."""
        features, moved = self.apply(variables, images, train=True, frozen=frozen)
        together_BxD = jnp.concatenate([features[head] for head in HEADS], axis=1)
        return Losses(losses(variables["params"], features, labels_B), moved, together_BxD)


def mgn(whole: Backbone, classes: int) -> MGN:
    """MGN on a ResNet."""
    if whole.family != "ResNet":
        raise UserError(f"MGN needs a ResNet, but {whole.name} is a {whole.family}; take resnet50_ibn, say")
    return MGN(whole, whole.part(end=(3, 1)), whole.part(begin=(3, 1), end=(5, 0)), classes)


def strips(maps_BxHxWxC: Array, count: int) -> list[Array]:
    """A map cut along its height; where that does not go evenly the last strip is the smaller one."""
    height = maps_BxHxWxC.shape[1]
    rows = -(-height // max(count, 1))
    cuts = [min(number * rows, height) for number in range(count + 1)]
    return [lax.slice_in_dim(maps_BxHxWxC, top, bottom, axis=1) for top, bottom in pairwise(cuts)]


def losses(params: Any, features: dict[str, Array], labels_B: Array, smoothing: float = 0.1) -> dict[str, Array]:
    """The thirteen losses by name, of parameters and the features that `MGN.apply` gives in training; their sum is the
    loss.

    A cross entropy for each head, an eighth of each; and a fifth of each triplet loss: of the heads of whole maps, and
    of the strips of a branch taken together, which have the name of the last.
    """
    result = {}
    for head, features_BxD in features.items():
        logits_BxC = circle_logits(features_BxD, params[f"{head}_head"]["classifier"]["weight"], labels_B)
        result[f"cls_{head}"] = cross_entropy(logits_BxC, labels_B, smoothing) / len(HEADS)
    together = [heads[:1] for heads in BRANCHES.values()] + [heads[1:] for heads in BRANCHES.values() if heads[1:]]
    compared = {heads[-1]: jnp.concatenate([features[head] for head in heads], axis=1) for heads in together}
    for name, features_BxD in compared.items():
        result[f"triplet_{name}"] = triplet_loss(*hardest_distances(features_BxD, labels_B)) / len(compared)
    return result


def _init_head(key: Array, channels: int, classes: int) -> Variables:
    keys = jax.random.split(key, 3)
    scale_and_bias, statistics = init_norm(WIDTH)
    params = {
        "pool_layer": {"p": init_exponent()},
        "bottleneck.0": {"kernel": kaiming_out(keys[0], (1, 1, channels, WIDTH))},
        "bottleneck.1": scale_and_bias | {"scale": 1 + 0.02 * jax.random.normal(keys[1], (WIDTH,))},
        "classifier": {"weight": torch_default(keys[2], (WIDTH, classes)).T},
    }
    return {"params": params, "batch_stats": {"bottleneck.1": statistics}}


def _apply_head(params: Any, statistics: Any, maps_BxHxWxC: Array, train: bool) -> tuple[Array, Any]:
    pooled_BxC = gem(maps_BxHxWxC, params["pool_layer"]["p"])
    reduced_BxD = pooled_BxC @ params["bottleneck.0"]["kernel"][0, 0]
    feature_BxD, moved = neck(params["bottleneck.1"], statistics["bottleneck.1"], reduced_BxD, train)
    return feature_BxD, {"bottleneck.1": moved}
