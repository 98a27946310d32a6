"""Rates of fine-tuning over a run, and the optimizers that take them against plain loops over PyTorch's formulas."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from cion_jax.config import BnneckOptimization, ClusterContrastOptimization, MgnOptimization
from cion_jax.finetune.optimizer import bnneck_optimizer, cluster_contrast_optimizer, mgn_optimizer
from cion_jax.finetune.schedules import (
    BnneckValues,
    ClusterContrastValues,
    MgnValues,
    bnneck_values_at,
    cluster_contrast_values_at,
    mgn_values_at,
)
from golden_weights import golden

RECORDED = golden("finetune/schedules")


def run_mgn(settings: MgnOptimization, epochs: int, batches: int) -> list[MgnValues]:
    return [mgn_values_at(settings, epochs, e, b, batches) for e in range(epochs) for b in range(batches)]


@pytest.mark.parametrize(("name", "batches"), [("mgn_market1501", 202), ("mgn_msmt17", 509)])
def test_the_published_schedule_of_mgn(name: str, batches: int) -> None:
    result = run_mgn(MgnOptimization(), 60, batches)
    np.testing.assert_allclose([values.learning_rate for values in result], RECORDED[name], rtol=1e-12)


def test_mgn_is_frozen_for_ten_epochs_and_one_step() -> None:
    frozen = [values.frozen for values in run_mgn(MgnOptimization(), 60, 7)]
    assert frozen == [True] * 71 + [False] * 349
    assert not any(values.frozen for values in run_mgn(MgnOptimization(frozen=0), 3, 7))


@pytest.mark.parametrize(("rate", "batch", "warmup"), [("0.0032", 512, 20), ("0.0004", 64, 20), ("0.0002", 32, 40)])
def test_the_published_schedules_of_bnneck(rate: str, batch: int, warmup: int) -> None:
    """Weights and biases, epoch by epoch; the rate grows in proportion with the batch."""
    result = [bnneck_values_at(BnneckOptimization(warmup=warmup), batch, 120, epoch) for epoch in range(120)]
    np.testing.assert_allclose(result, RECORDED[f"transreid_lr{rate}_warm{warmup}"], rtol=1e-12)


def test_the_published_schedule_of_cluster_contrast() -> None:
    result = [cluster_contrast_values_at(ClusterContrastOptimization(), epoch).learning_rate for epoch in range(50)]
    np.testing.assert_allclose(result, RECORDED["ccontrast"], rtol=1e-12)


def test_without_warm_up_rates_begin_at_their_peak() -> None:
    assert mgn_values_at(MgnOptimization(warmup=0), 60, 0, 0, 10).learning_rate == 3.5e-4
    assert bnneck_values_at(BnneckOptimization(warmup=0), 64, 120, 0) == (4e-4, 8e-4)


def test_a_journal_gets_the_rates() -> None:
    assert mgn_values_at(MgnOptimization(warmup=0), 60, 0, 0, 10).as_dict() == {"learning_rate": 3.5e-4}
    rates = {"learning_rate": 4e-4, "bias_learning_rate": 8e-4}
    assert bnneck_values_at(BnneckOptimization(warmup=0), 64, 120, 0).as_dict() == rates
    assert cluster_contrast_values_at(ClusterContrastOptimization(), 0).as_dict() == {"learning_rate": 3.5e-4}


#: Names as the methods have them: a backbone's table whose name has "bias" in it, norms, a fixed shift, an exponent.
SHAPES = {
    "backbone": {"conv": {"kernel": (3, 3, 4, 5), "bias": (5,)}, "relative_position_bias_table": (7, 2)},
    "b1": {"norm": {"scale": (5,), "bias": (5,)}},
    "b1_head": {"pool_layer": {"p": (1,)}, "bottleneck.1": {"scale": (5,), "bias": (5,)}},
    "heads_extra_bn_b1": {"scale": (5,), "bias": (5,)},
    "bottleneck": {"scale": (5,), "bias": (5,)},
    "feat_bn": {"scale": (5,), "bias": (5,)},
    "classifier": {"weight": (6, 5)},
}
FIXED = ("b1_head.bottleneck.1.bias", "bottleneck.bias", "feat_bn.bias")
#: Learning rates of five steps.
RATES = (0.1, 0.2, 0.15, 0.05, 0.3)
Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], float], np.ndarray]
OptimizerAt = Callable[[int], optax.GradientTransformationExtraArgs]


def draw(seed: int) -> Any:
    random = np.random.default_rng(seed)
    return jax.tree.map(random.standard_normal, SHAPES, is_leaf=lambda x: isinstance(x, tuple))


def by_name(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(entry.key for entry in path): np.asarray(leaf) for path, leaf in leaves}


def by_optax(optimizer: OptimizerAt) -> tuple[list[dict[str, np.ndarray]], list[Any]]:
    """Parameters and the optimizer's state before each step, and after the last."""
    params = draw(0)
    state = optimizer(0).init(params)
    all_params, states = [by_name(params)], [state]
    for step in range(len(RATES)):
        updates, state = optimizer(step).update(draw(step + 1), state, params)
        params = optax.apply_updates(params, updates)
        all_params.append(by_name(params))
        states.append(state)
    return all_params, states


def by_hand(rule: Rule, rate_of: Callable[[str, int], float]) -> dict[str, np.ndarray]:
    """After the last step; where there is no rate, nothing of a parameter moves."""
    params = by_name(draw(0))
    gradients = [by_name(draw(step + 1)) for step in range(len(RATES))]
    for name in params:
        memory: dict[str, Any] = {"count": 0, "first": 0.0, "second": 0.0}
        for step in range(len(RATES)):
            if rate := rate_of(name, step):
                params[name] = rule(params[name], gradients[step][name], memory, rate)
    return params


def sgd(decay: float) -> Rule:
    """torch.optim.SGD(momentum=0.9)"""

    def rule(p: np.ndarray, g: np.ndarray, memory: dict[str, Any], rate: float) -> np.ndarray:
        memory["first"] = 0.9 * memory["first"] + (g + decay * p)
        return p - rate * memory["first"]

    return rule


def adam(decay: float) -> Rule:
    """torch.optim.Adam: weight decay is a part of the gradient, not as in AdamW."""

    def rule(p: np.ndarray, g: np.ndarray, memory: dict[str, Any], rate: float) -> np.ndarray:
        g = g + decay * p
        memory["count"] += 1
        memory["first"] = 0.9 * memory["first"] + 0.1 * g
        memory["second"] = 0.999 * memory["second"] + 0.001 * g**2
        root = np.sqrt(memory["second"] / (1 - 0.999 ** memory["count"]))
        return p - rate * memory["first"] / (1 - 0.9 ** memory["count"]) / (root + 1e-8)

    return rule


def mgn(settings: MgnOptimization, frozen: int) -> OptimizerAt:
    return lambda step: mgn_optimizer(settings, MgnValues(np.float64(RATES[step]), np.bool_(step < frozen)))


def bnneck(step: int) -> optax.GradientTransformationExtraArgs:
    values = BnneckValues(np.float64(RATES[step]), np.float64(3 * RATES[step]))
    return bnneck_optimizer(BnneckOptimization(weight_decay=0.02), values)


def cluster_contrast(step: int) -> optax.GradientTransformationExtraArgs:
    values = ClusterContrastValues(np.float64(RATES[step]))
    return cluster_contrast_optimizer(ClusterContrastOptimization(weight_decay=0.02), values)


def rate_of_bnneck(name: str, step: int) -> float:
    return 0.0 if name in FIXED else RATES[step] * (3 if "bias" in name else 1)


def rate_of_cluster_contrast(name: str, step: int) -> float:
    return 0.0 if name in FIXED else RATES[step]


def rate_of_mgn(name: str, step: int) -> float:
    """The trunk and the branch are frozen in the first two steps."""
    return 0.0 if name in FIXED or (step < 2 and name.startswith(("backbone.", "b1."))) else RATES[step]


@pytest.mark.parametrize(
    ("optimizer", "rule", "rate_of"),
    [
        (bnneck, sgd(0.02), rate_of_bnneck),
        (cluster_contrast, sgd(0.02), rate_of_cluster_contrast),
        (mgn(MgnOptimization(weight_decay=0.02), frozen=2), adam(0.02), rate_of_mgn),
    ],
)
def test_optimizers_follow_the_formulas_of_pytorch(
    optimizer: OptimizerAt, rule: Rule, rate_of: Callable[[str, int], float]
) -> None:
    """On every parameter, norms, biases and exponents too; Adam of what thaws begins with its first step."""
    with jax.enable_x64(True):
        result = by_optax(optimizer)[0][-1]
    for name, value in by_hand(rule, rate_of).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-10, err_msg=name)


def test_nothing_of_what_is_frozen_moves() -> None:
    with jax.enable_x64(True):
        params, states = by_optax(mgn(MgnOptimization(), frozen=2))
    adams = [state.inner_states["pretrained"].inner_state.inner_state[1] for state in states]
    assert [int(adam.count) for adam in adams] == [0, 0, 0, 1, 2, 3]
    assert not any(leaf.any() for adam in adams[:3] for leaf in jax.tree.leaves(adam))
    assert int(states[-1].inner_states["fresh"].inner_state[1].count) == len(RATES)
    for name, before in params[0].items():
        still = name in FIXED or name.startswith(("backbone.", "b1."))
        assert np.array_equal(before, params[2][name]) == still, name
        assert np.array_equal(before, params[-1][name]) == (name in FIXED), name
