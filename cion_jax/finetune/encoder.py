"""The encoder of "Cluster Contrast for Unsupervised Person Re-Identification" (Dai et al., ACCV 2022).

    feature = unit(neck(gem(map)))        of a ResNet's last map, in training and after it

Names of variables are those of the published weights: `base` is the ResNet, `gap` the pooling, `feat_bn` the neck.
"""

from dataclasses import dataclass
from typing import Any

from jax import Array

from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import init_norm, neck
from cion_jax.finetune.losses import unit
from cion_jax.finetune.memory import cluster_loss
from cion_jax.finetune.network import Finetuned, Losses
from cion_jax.finetune.pooling import gem, init_exponent
from cion_jax.finetune.sequential import STEM, apply_part, stage_names, take_part
from cion_jax.models.zoo import Backbone, Variables

#: The order in which PyTorch registers what is around the backbone; the backbone's own order follows.
ORDER = "base gap p feat_bn"
_BASE = {**STEM, **stage_names(1, 4), **stage_names(2, 5), **stage_names(3, 6), **stage_names(4, 7)}


@dataclass(frozen=True)
class Encoder(Finetuned):
    """The network without its weights; `encoder` makes it."""

    method = "cluster-contrast"
    own_order = ORDER
    base: Backbone
    """The backbone's part up to the last map."""
    temperature: float = 0.05
    """Divides the similarities of features and clusters in training."""
    exponent: float = 3.0
    """Of the pooling, at the start."""

    def begin(self, key: Array, body: Variables) -> Variables:
        """Variables with the weights of a pre-trained or fine-tuned backbone, and fresh pooling and neck."""
        base = take_part(body, _BASE)
        scale_and_bias, statistics = init_norm(self.width(self.image_size))
        params = {"base": base["params"], "gap": {"p": init_exponent(self.exponent)}, "feat_bn": scale_and_bias}
        return {"params": params, "batch_stats": {"base": base["batch_stats"], "feat_bn": statistics}}

    def apply(self, variables: Variables, images: Array, *, train: bool = False) -> Any:
        """Unit features (N, width) of images (N, H, W, 3).

        With `train` batch statistics are used, and the result is a pair: features, and the variables with running
        statistics moved on.
        """
        params, statistics = variables["params"], variables["batch_stats"]
        own = {name: tree["base"] for name, tree in variables.items()}
        maps_BxHxWxC, base = apply_part(self.base, _BASE, own, images, train)
        pooled_BxC = gem(maps_BxHxWxC, params["gap"]["p"])
        neck_BxC, moved = neck(params["feat_bn"], statistics["feat_bn"], pooled_BxC, train)
        features_BxC = unit(neck_BxC)
        if train:
            return features_BxC, variables | {"batch_stats": {"base": base, "feat_bn": moved}}
        return features_BxC

    def losses(
        self, variables: Variables, images: Array, labels_B: Array, *, memory_CxD: Any, key: Array, frozen: bool
    ) -> Losses:
        """Cross entropy among the clusters of the memory."""
        features_BxD, moved = self.apply(variables, images, train=True)
        value, _ = cluster_loss(memory_CxD, features_BxD, labels_B, temperature=self.temperature)
        return Losses({"contrast": value}, moved, features_BxD)


def encoder(whole: Backbone, temperature: float = 0.05, exponent: float = 3.0) -> Encoder:
    """The encoder on a ResNet."""
    if whole.family != "ResNet":
        raise UserError(
            f"cluster contrast needs a ResNet, but {whole.name} is a {whole.family}; take resnet50_ibn, say"
        )
    return Encoder(whole, whole.part(end=(5, 0)), temperature, exponent)
