"""Adam and SGD of fine-tuning, made of optax's parts for one step's values.

Weight decay is coupled, as PyTorch's optimizers have it: it is added to the gradient, before moments, and to that of
every parameter, norms and biases too. The shift of the BatchNorm in front of a classifier is fixed for good.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cion_jax.config import BnneckOptimization, ClusterContrastOptimization, MgnOptimization
from cion_jax.finetune.schedules import BnneckValues, ClusterContrastValues, MgnValues
from cion_jax.pretrain.optimizer import scale_by_adam

Tree = Any

#: Parts of MGN that come from the backbone; all others are fresh.
_PRETRAINED = ("backbone", "b1", "b2", "b3")
_FIXED = ("bottleneck.bias", "bottleneck.1.bias", "feat_bn.bias")


def mgn_optimizer(settings: MgnOptimization, values: MgnValues) -> optax.GradientTransformationExtraArgs:
    """Adam. Trunk and branches have a state of their own, of which nothing moves while they are frozen."""
    decay = optax.add_decayed_weights(settings.weight_decay)
    moving = optax.chain(decay, scale_by_adam(), optax.scale_by_learning_rate(values.learning_rate))
    freezing = optax.transforms.conditionally_mask(moving, lambda _: jnp.logical_not(values.frozen))
    rules = {"fresh": moving, "pretrained": freezing, "fixed": optax.set_to_zero()}
    return optax.partition(rules, _groups(lambda key: "pretrained" if key.split(".")[0] in _PRETRAINED else "fresh"))


def bnneck_optimizer(settings: BnneckOptimization, values: BnneckValues) -> optax.GradientTransformationExtraArgs:
    """SGD; parameters with "bias" in their name, such as Swin's tables of relative positions, have their own rate."""
    rules = {
        "weights": _sgd(settings.weight_decay, values.learning_rate),
        "biases": _sgd(settings.weight_decay, values.bias_learning_rate),
        "fixed": optax.set_to_zero(),
    }
    return optax.partition(rules, _groups(lambda key: "biases" if "bias" in key else "weights"))


def cluster_contrast_optimizer(
    settings: ClusterContrastOptimization, values: ClusterContrastValues
) -> optax.GradientTransformationExtraArgs:
    """SGD, with one rate for all parameters."""
    rules = {"moving": _sgd(settings.weight_decay, values.learning_rate), "fixed": optax.set_to_zero()}
    return optax.partition(rules, _groups(lambda key: "moving"))


def _sgd(weight_decay: float, learning_rate: Any) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(decay, optax.trace(0.9), optax.scale_by_learning_rate(learning_rate))


def _groups(group_of: Callable[[str], str]) -> Callable[[Tree], Tree]:
    """The group of each parameter by its name, such as `b1_head.bottleneck.1.bias`."""

    def group(path: tuple[Any, ...], _: Any) -> str:
        key = ".".join(entry.key for entry in path)
        return "fixed" if key.endswith(_FIXED) else group_of(key)

    return lambda params: jax.tree_util.tree_map_with_path(group, params)
