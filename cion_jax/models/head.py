"""The projection head of DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021).

    z = normalise(W3 gelu(W2 gelu(W1 x)))        the bottleneck, 256 wide
    logits = z P',  P = g v / |v|                 one row of P per prototype, g fixed at 1 in training

The last layer is linear in the bottleneck: whoever needs sums of logits or their log-sum-exp takes `bottleneck` and
`prototypes` and never the logits themselves.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cion_jax.models.layers import gelu, normal_02, torch_default

ORDER = "mlp last_layer weight_g weight_v"
_LAYERS = ("mlp.0", "mlp.2", "mlp.4")

Variables = dict[str, Any]


def init(key: Array, inputs: int, prototypes: int, hidden: int = 2048, bottleneck: int = 256) -> Variables:
    """Fresh variables for features of a width; 65,536 prototypes are usual, ReIDZoo checkpoints have 65,336."""
    keys = jax.random.split(key, 4)
    widths = inputs, hidden, hidden, bottleneck
    params: dict[str, Any] = {
        name: {"kernel": normal_02(keys[i], widths[i : i + 2]), "bias": jnp.zeros(widths[i + 1])}
        for i, name in enumerate(_LAYERS)
    }
    rows = torch_default(keys[3], (bottleneck, prototypes)).T
    params["last_layer"] = {"weight_g": jnp.ones((prototypes, 1)), "weight_v": rows}
    return {"params": params}


def bottleneck(variables: Variables, features: Array) -> Array:
    """Unit vectors (N, 256) of features (N, inputs), in float32 or better: the loss divides them by a temperature."""
    x = features
    params = variables["params"]
    for name in _LAYERS:
        layer = params[name]
        x = x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype)
        x = gelu(x) if name != _LAYERS[-1] else x
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def prototypes(variables: Variables) -> Array:
    """The effective rows (K, 256) of the last layer."""
    # lengths first: a product with all of weight_v would be kept for the backward pass
    return variables["params"]["last_layer"]["weight_v"] * _factors(variables)


def logits(variables: Variables, vectors: Array) -> Array:
    """Logits (..., K) of bottleneck vectors (..., 256); prototypes are not made for it."""
    return vectors @ variables["params"]["last_layer"]["weight_v"].T * _factors(variables)[:, 0]


def _factors(variables: Variables) -> Array:
    """What rows (K, 1) of weight_v are multiplied by."""
    last = variables["params"]["last_layer"]
    return last["weight_g"] / jnp.linalg.norm(last["weight_v"], axis=-1, keepdims=True)


def apply(variables: Variables, features: Array) -> Array:
    """Logits (N, K). For small K, or to check against: training never makes them."""
    return logits(variables, bottleneck(variables, features))
