"""AdamW, LARS and SGD, made of optax's parts for one step's rates.

Each parameter's gradient is clipped by itself. The prototypes have a state of their own, so that while they are frozen
nothing of them moves: no decay, no moments, no count of steps. Their lengths (`weight_g`) are fixed for good.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cion_jax.config import Optimization
from cion_jax.pretrain.schedules import StepValues

Tree = Any


def optimizer(settings: Optimization, values: StepValues) -> optax.GradientTransformationExtraArgs:
    """The transformation of gradients in one step; the shape of its state does not depend on the values."""
    moving = optax.chain(_clip_each(settings.clip), *_rule(settings, values))
    still = optax.transforms.conditionally_mask(moving, lambda _: jnp.logical_not(values.frozen))
    return optax.partition({"moving": moving, "prototypes": still, "fixed": optax.set_to_zero()}, _groups)


def _groups(params: Tree) -> Tree:
    names = {"weight_v": "prototypes", "weight_g": "fixed"}
    return jax.tree_util.tree_map_with_path(lambda path, _: names.get(path[-1].key, "moving"), params)


def _rule(settings: Optimization, values: StepValues) -> list[optax.GradientTransformation]:
    decay = optax.add_decayed_weights(values.weight_decay, mask=_has_dimensions)
    scale = optax.scale_by_learning_rate(values.learning_rate)
    if settings.optimizer == "adamw":
        return [scale_by_adam(), decay, scale]
    momentum = optax.trace(0.9)
    if settings.optimizer == "sgd":
        return [decay, momentum, scale]
    trust = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=1e-3), _has_dimensions)
    return [decay, trust, momentum, scale]


def scale_by_adam(rates: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8) -> optax.GradientTransformation:
    """As `optax.scale_by_adam`, whose 1 - 0.999^t is wrong by 1e-5 in the first steps of float32; here it is exact."""

    def update(gradients: Tree, state: optax.ScaleByAdamState, params: Tree = None) -> tuple[Tree, Any]:
        mean = optax.tree.update_moment(gradients, state.mu, rates[0], 1)
        square = optax.tree.update_moment_per_elem_norm(gradients, state.nu, rates[1], 2)
        count = state.count + 1
        a, b = (-jnp.expm1(count * math.log(rate)) for rate in rates)
        updates = jax.tree.map(lambda m, v: m / a / (jnp.sqrt(v / b) + epsilon), mean, square)
        return updates, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _has_dimensions(params: Tree) -> Tree:
    """Matrices and kernels, but neither biases nor norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _clip_each(limit: float) -> optax.GradientTransformation:
    def clip(gradient: jax.Array) -> jax.Array:
        return gradient * jnp.minimum(1, limit / (jnp.linalg.norm(gradient.ravel()) + 1e-6))

    return optax.stateless_with_tree_map(lambda gradient, _: clip(gradient)) if limit else optax.identity()
