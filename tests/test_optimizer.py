"""The optimizers against plain loops over PyTorch's and DINO's formulas, parameter by parameter."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from cion_jax.config import Optimization
from cion_jax.pretrain.optimizer import optimizer
from cion_jax.pretrain.schedules import StepValues

SHAPES = {
    "backbone": {"conv": {"kernel": (3, 3, 4, 5), "bias": (5,)}, "norm": {"scale": (5,)}, "layer_scale": (5, 1, 1)},
    "head": {"last_layer": {"weight_g": (6, 1), "weight_v": (6, 3)}},
}
#: Learning rate and weight decay of each step; the prototypes are frozen in the first two.
STEPS = [(0.1, 0.04), (0.2, 0.1), (0.15, 0.2), (0.05, 0.3)]


def draw(seed: int, scale: float = 1.0) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda s: scale * random.standard_normal(s), SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def by_optax(settings: Optimization) -> dict[str, np.ndarray]:
    params = draw(0)
    state = optimizer(settings, StepValues(0, 0, 0, False)).init(params)
    for step, (rate, decay) in enumerate(STEPS):
        now = StepValues(np.float64(rate), np.float64(decay), 0.0, np.bool_(step < 2))
        updates, state = optimizer(settings, now).update(draw(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], float, float], np.ndarray]


def by_hand(rule: Rule, clip: float) -> dict[str, np.ndarray]:
    params = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(draw(0))}
    for name, value in params.items():
        memory: dict[str, Any] = {"count": 0, "first": np.zeros_like(value), "second": np.zeros_like(value)}
        for step, (rate, decay) in enumerate(STEPS):
            if "weight_g" in name or ("weight_v" in name and step < 2):
                continue
            gradient = {jax.tree_util.keystr(p): g for p, g in jax.tree_util.tree_leaves_with_path(draw(step + 1))}[
                name
            ]
            gradient = gradient * min(1.0, clip / (np.linalg.norm(gradient) + 1e-6))
            value = rule(value, gradient, memory, rate, decay if value.ndim > 1 else 0.0)
        params[name] = value
    return params


def adamw(p: np.ndarray, g: np.ndarray, memory: dict[str, Any], rate: float, decay: float) -> np.ndarray:
    memory["count"] += 1
    memory["first"] = 0.9 * memory["first"] + 0.1 * g
    memory["second"] = 0.999 * memory["second"] + 0.001 * g**2
    root = np.sqrt(memory["second"]) / np.sqrt(1 - 0.999 ** memory["count"])
    return p * (1 - rate * decay) - rate / (1 - 0.9 ** memory["count"]) * memory["first"] / (root + 1e-8)


def sgd(p: np.ndarray, g: np.ndarray, memory: dict[str, Any], rate: float, decay: float) -> np.ndarray:
    memory["first"] = 0.9 * memory["first"] + g + decay * p
    return p - rate * memory["first"]


def lars(p: np.ndarray, g: np.ndarray, memory: dict[str, Any], rate: float, decay: float) -> np.ndarray:
    step = g + decay * p
    trust = 1e-3 * np.linalg.norm(p) / np.linalg.norm(step) if p.ndim > 1 else 1.0
    memory["first"] = 0.9 * memory["first"] + trust * step
    return p - rate * memory["first"]


@pytest.mark.parametrize("clip", [2.0, 1e6])
@pytest.mark.parametrize("rule", [adamw, sgd, lars])
def test_optimizers_follow_their_formulas(rule: Rule, clip: float) -> None:
    settings = Optimization(optimizer=rule.__name__, clip=clip)  # type: ignore[arg-type]
    with jax.enable_x64(True):
        result = by_optax(settings)
    for name, value in by_hand(rule, clip).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-10, err_msg=name)


def test_without_a_limit_gradients_are_left_as_they_are() -> None:
    """But for the last bit: XLA may round two programs in two ways."""
    with jax.enable_x64(True):
        unlimited, far_below = by_optax(Optimization(clip=0)), by_optax(Optimization(clip=1e9))
    for name, value in far_below.items():
        np.testing.assert_allclose(unlimited[name], value, rtol=1e-15, err_msg=name)


def test_bias_correction_is_right_in_float32() -> None:
    """1 - 0.999^t, which float32 has wrong by 1e-5 at first when taken as it stands."""
    settings = Optimization(clip=0, weight_decay=0)
    with jax.enable_x64(True):
        exact = by_optax(settings)
    for name, value in by_optax(settings).items():
        np.testing.assert_allclose(value, exact[name], rtol=0, atol=1e-6, err_msg=name)
