"""BNNeck (Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-Identification", CVPRW 2019).

    f = backbone(x)        what triplets compare, and what is searched with
    logits = neck(f) W'    for the cross entropy; the neck is a BatchNorm that does not learn its shift

Variables are {"base": the backbone's, "bottleneck": the neck's, "classifier": a row for each class}, in each collection
that has them: their names are those of TransReID's weights.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from cion_jax.finetune.losses import cross_entropy, hardest_distances, triplet_loss
from cion_jax.finetune.network import Finetuned, Losses
from cion_jax.models.norms import BatchNorm, at_least_float32
from cion_jax.models.zoo import Backbone, Variables

#: The order in which PyTorch registers what is around the backbone; the backbone's own order follows.
ORDER = "base classifier bottleneck"

Tree = dict[str, Any]


@dataclass(frozen=True)
class BNNeck(Finetuned):
    """The network without its weights."""

    method = "bnneck"
    own_order = ORDER
    classes: int
    feature: Literal["before", "after"] = "before"
    """Which side of the neck one searches with."""

    def begin(self, key: Array, body: Variables) -> Variables:
        """Variables with the weights of a pre-trained backbone, and a fresh neck and classifier."""
        return init(key, body, self.width(self.image_size), self.classes)

    def apply(self, variables: Variables, images: Array) -> Array:
        """Features (N, width) of images (N, H, W, 3)."""
        features_NxD = self.backbone.apply(backbone_variables(variables), images)
        if self.feature == "before":
            return features_NxD
        params, statistics = variables["params"]["bottleneck"], variables["batch_stats"]["bottleneck"]
        return neck(params, statistics, at_least_float32(features_NxD), train=False)[0]

    def losses(
        self, variables: Variables, images: Array, labels_B: Array, *, memory_CxD: Any, key: Array, frozen: bool
    ) -> Losses:
        """Cross entropy behind the neck, triplets of the hardest images in front of it."""
        (logits_BxC, features_BxD), moved = apply(self.backbone, variables, images, rng=key)
        values = {
            "cross_entropy": cross_entropy(logits_BxC, labels_B),
            "triplet": triplet_loss(*hardest_distances(features_BxD, labels_B)),
        }
        return Losses(values, moved, features_BxD)


def init(key: Array, body: Variables, width: int, classes: int) -> Variables:
    """Variables of a backbone, whose features have a width, and of a fresh neck and classifier."""
    scale_and_bias, statistics = init_norm(width)
    rows_CxD = 0.001 * jax.random.normal(key, (classes, width))
    params = {"base": body["params"], "bottleneck": scale_and_bias, "classifier": {"weight": rows_CxD}}
    return {"params": params, "batch_stats": {"base": body.get("batch_stats", {}), "bottleneck": statistics}}


def apply(
    model: Backbone, variables: Variables, images: Array, *, rng: Array | None = None
) -> tuple[tuple[Array, Array], Variables]:
    """In training: logits (B, classes) and features (B, width) of images (B, H, W, 3), and the variables with running
    statistics moved on; `rng` is for drop path.

    To embed or search with what was trained there is `BNNeck.apply`.
    """
    features_BxD, body = model.apply(backbone_variables(variables), images, train=True, rng=rng)
    features_BxD = at_least_float32(features_BxD)
    params, statistics = variables["params"], variables["batch_stats"]
    neck_BxD, moved = neck(params["bottleneck"], statistics["bottleneck"], features_BxD, train=True)
    logits_BxC = neck_BxD @ params["classifier"]["weight"].T
    batch_stats = {"base": body.get("batch_stats", {}), "bottleneck": moved}
    return (logits_BxC, features_BxD), variables | {"batch_stats": batch_stats}


def backbone_variables(variables: Variables) -> Variables:
    """The variables of the backbone; one without BatchNorm has no batch statistics."""
    body = {name: collection["base"] for name, collection in variables.items()}
    return {name: collection for name, collection in body.items() if collection}


def neck(params: Tree, statistics: Tree, x: Array, train: bool) -> tuple[Array, Tree]:
    """BatchNorm with a shift that stays what it is, 0 in all that is trained here: no gradient reaches it.

    Returns what comes out, and the running statistics, moved on if in training.
    """
    return batch_norm(params | {"bias": lax.stop_gradient(params["bias"])}, statistics, x, train)


def batch_norm(params: Tree, statistics: Tree, x: Array, train: bool) -> tuple[Array, Tree]:
    """BatchNorm of (..., C), and its running statistics, moved on if in training."""
    y, moved = BatchNorm().apply({"params": params, "batch_stats": statistics}, x, train, mutable=["batch_stats"])
    return y, moved["batch_stats"]


def init_norm(width: int) -> tuple[Tree, Tree]:
    """Parameters and running statistics of a fresh BatchNorm."""
    params = {"scale": jnp.ones(width), "bias": jnp.zeros(width)}
    return params, {"mean": jnp.zeros(width), "var": jnp.ones(width)}
