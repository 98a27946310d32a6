"""Trained branches into single convolutions, for inference: the arithmetic of re-parameterisation.

In eval mode a convolution, a BatchNorm, an identity, and sums and multiples of them are all one thing: a convolution
with a bias. Here that is a `Filter`, in float64 so that folding costs no accuracy:

    (kernel * x + b) s + t                   = (kernel s) * x + (b s + t)
    (kernel * x + b) + (kernel' * x + b')    = (kernel + kernel') * x + (b + b'), the smaller kernel padded by zeros
    x                                        = identity * x

with s = scale / sqrt(var + epsilon) and t = bias - mean s.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from cion_jax.models.norms import BATCH_EPSILON

#: Kernel, HWIO or IO, and bias of a convolution or linear.
Filter = tuple[np.ndarray, np.ndarray]
#: A layer's or network's part of the variables, parameters and statistics together.
Node = Mapping[str, Any]


def loaded(weights: Node, norm: Node | None = None) -> Filter:
    """What a layer, with or without a bias, and the BatchNorm behind it, if there is one, compute."""
    kernel = np.asarray(weights["kernel"], np.float64)
    conv = kernel, np.asarray(weights.get("bias", np.zeros(kernel.shape[-1])), np.float64)
    return normed(conv, norm) if norm else conv


def identity(inputs: int, outputs: int) -> Filter:
    """A 1x1 convolution that changes nothing; `inputs` are those of one group, hence 1 if it is depthwise."""
    return np.tile(np.eye(inputs), outputs // inputs)[None, None], np.zeros(outputs)


def summed(*convs: Filter) -> Filter:
    """Filters side by side over the same input, each zero-padded by half its kernel."""
    size = max(len(kernel) for kernel, _ in convs)
    return np.sum([padded(kernel, size) for kernel, _ in convs], 0), np.sum([bias for _, bias in convs], 0)


def padded(kernel: np.ndarray, size: int) -> np.ndarray:
    """A square kernel in the middle of a larger one."""
    edge = (size - len(kernel)) // 2
    return np.pad(kernel, ((edge, edge), (edge, edge), (0, 0), (0, 0)))


def scaled(conv: Filter, factor: Any) -> Filter:
    """A filter whose outputs are multiplied, each by its own factor."""
    kernel, bias = conv
    factor = np.asarray(factor, np.float64).reshape(-1)
    return kernel * factor, bias * factor


def normed(conv: Filter, norm: Node) -> Filter:
    """A filter and a BatchNorm behind it."""
    factor, shift = affine(norm)
    kernel, bias = scaled(conv, factor)
    return kernel, bias + shift


def norm_before(norm: Node, linear: Filter) -> Filter:
    """A BatchNorm and a linear behind it. (For a padded convolution it would not be exact: padding is not normed.)"""
    (factor, shift), (kernel, bias) = affine(norm), linear
    return factor[:, None] * kernel, shift @ kernel + bias


def affine(norm: Node) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the shift that a BatchNorm is in eval mode."""
    scale, bias, mean, var = (np.asarray(norm[name], np.float64) for name in ("scale", "bias", "mean", "var"))
    factor = scale / np.sqrt(var + BATCH_EPSILON)
    return factor, bias - mean * factor


def layer(conv: Filter) -> dict[str, np.ndarray]:
    """The variables of a convolution or linear with bias."""
    kernel, bias = conv
    return {"kernel": kernel, "bias": bias}


def rewritten(variables: Mapping[str, Node], rule: Callable[[Node], Node]) -> dict[str, Any]:
    """Variables of a fused network: from the top down, each node of the tree is what the rule makes of it.

    The rule sees a node with its parameters and statistics together and gives it back as it is, or fused; {"params"} in
    float32 is all that remains.
    """
    return {"params": _rewritten(_joined(variables["params"], variables["batch_stats"]), rule)}


def _joined(params: Node, stats: Node) -> dict[str, Any]:
    below = {
        name: _joined(value, stats.get(name, {})) if isinstance(value, Mapping) else value
        for name, value in params.items()
    }
    return {**stats, **below}


def _rewritten(node: Any, rule: Callable[[Node], Node]) -> Any:
    if not isinstance(node, Mapping):
        return jnp.asarray(np.asarray(node, np.float32))
    return {name: _rewritten(value, rule) for name, value in rule(node).items()}
