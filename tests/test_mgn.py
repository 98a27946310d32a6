"""MGN against golden values of FastReID: names, features, losses, gradients, five steps across the thaw."""

import functools
import hashlib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cion_jax.config import MEAN, STD, MgnOptimization
from cion_jax.errors import UserError
from cion_jax.finetune import mgn
from cion_jax.finetune.losses import circle_logits
from cion_jax.finetune.optimizer import mgn_optimizer
from cion_jax.finetune.schedules import MgnValues
from cion_jax.models.zoo import Variables, backbone
from cion_jax.weights.mapping import from_state_dict, state_dict
from compiling import USUAL
from finetune_golden import blocks, close, differences, lengths, rule_state, torch_names
from golden_weights import golden, manifest, state

pytestmark = pytest.mark.xdist_group("mgn")  # one after the other: they share compiled functions

NAME = "resnet50_ibn"
NET = mgn.mgn(backbone(NAME, image_size=(384, 128)), classes=20)
RECORDED = golden(f"finetune/mgn_{NAME}")
STEPS = golden(f"finetune/trajectory_mgn_{NAME}")
MANIFEST = manifest(f"finetune/mgn_{NAME}")


@functools.cache
def template() -> Variables:
    return NET.shapes()


def as_loaded(key: str) -> str:
    """The key that a weight has in the backbone, if it is loaded from there."""
    return MANIFEST["loaded_from"][key] or key


def variables_of(loaded: bool, dtype: Any) -> Variables:
    """By the rule: each key its own weight, or branches that are equal because they are loaded."""
    weights = rule_state(f"finetune/mgn_{NAME}", as_loaded if loaded else str)
    weights = {key: value for key, value in weights.items() if not key.startswith("pixel_")}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), from_state_dict(template(), weights))


def normalised(grey: np.ndarray, dtype: Any) -> Any:
    return ((grey.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)).astype(dtype)


@functools.cache
def gradient(frozen: bool) -> Any:
    def loss(params: Any, variables: Variables, images: Any, labels: Any) -> Any:
        features, moved = NET.apply(variables | {"params": params}, images, train=True, frozen=frozen)
        parts = mgn.losses(params, features, labels)
        return sum(parts.values()), (parts, features, moved["batch_stats"])

    return jax.jit(
        lambda variables, *batch: jax.value_and_grad(loss, has_aux=True)(variables["params"], variables, *batch),
        compiler_options=USUAL,
    )


def test_names_are_those_of_the_published_weights_in_their_order() -> None:
    weights = state_dict(variables_of(False, np.float32), NET.order)
    rows = [row[:2] for row in MANIFEST["keys"] if not row[0].startswith("pixel_")]
    assert [[key, list(value.shape)] for key, value in weights.items()] == rows
    floats = b"".join(value.astype("<f4").tobytes() for value in weights.values() if value.dtype == np.float32)
    assert hashlib.sha256(floats).hexdigest() == str(RECORDED["weights_sha256"])


def test_branches_are_copies_of_the_pretrained_stages_and_heads_are_fresh() -> None:
    body = from_state_dict(NET.backbone.shapes(), state(NAME))
    variables = jax.jit(replace(NET, classes=751).begin)(jax.random.key(0), body)
    weights = state_dict(variables, NET.order)
    expected = rule_state(f"finetune/mgn_{NAME}", as_loaded)
    for key, value in expected.items():
        if MANIFEST["loaded_from"][key]:
            np.testing.assert_array_equal(weights[key], value)
    rows = weights["b22_head.classifier.weight"]
    assert rows.shape == (751, 256) and abs(np.abs(rows).max() - 1 / 16) < 1e-4
    reduction = weights["b33_head.bottleneck.0.weight"]
    assert abs(reduction.std() - np.sqrt(2 / 256)) < 1e-3 and weights["b1_head.pool_layer.p"] == 3
    assert not np.array_equal(reduction, weights["b32_head.bottleneck.0.weight"])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 1e-4)], ids=["float64", "float32"])
def test_features_of_whole_maps_come_before_those_of_strips(dtype: Any, bound: float) -> None:
    """In float32 to ten times what rounding makes of the reference."""
    grey = (np.random.RandomState(210).random_sample((2, 384, 128, 3)) * 255).astype(np.float32)
    with jax.enable_x64(dtype == np.float64):
        features = jax.jit(NET.apply)(variables_of(False, dtype), normalised(grey, dtype))
    close(features, RECORDED["eval_feat_f64"], bound)
    assert features.shape[1] == NET.width((384, 128)) and features.dtype == dtype


def test_one_forward_and_backward_pass() -> None:
    grey = (np.random.RandomState(211).random_sample((16, 192, 64, 3)) * 255).astype(np.float32)
    labels = RECORDED["targets"]
    with jax.enable_x64(True):
        variables = variables_of(False, np.float64)
        (total, (parts, features, statistics)), grads = gradient(False)(variables, normalised(grey, np.float64), labels)
        for head, feature in features.items():
            rows = variables["params"][f"{head}_head"]["classifier"]["weight"]
            close(feature, RECORDED[f"{head}_feat_f64"], 1e-6)
            close(circle_logits(feature, rows, labels), RECORDED[f"{head}_logits_f64"], 1e-6)
    names = [str(name).removeprefix("loss_") for name in RECORDED["loss_names"]]
    np.testing.assert_allclose([parts[name] for name in names], RECORDED["losses_f64"], rtol=1e-8)
    np.testing.assert_allclose(total, RECORDED["total_f64"], rtol=1e-8)
    slopes = torch_names(grads, NET.order)
    np.testing.assert_allclose(lengths(slopes, RECORDED["grad_names"]), RECORDED["grad_norms_f64"], rtol=1e-6)
    running = torch_names(statistics, NET.order, "batch_stats")
    for key in RECORDED:
        name = key.removesuffix("_f64").removeprefix("grad_")
        if key.endswith("_f64") and name in slopes:
            close(slopes[name].ravel()[:64], RECORDED[key], 1e-6)
        elif key.endswith("_f64") and name in running:
            close(running[name], RECORDED[key], 1e-6)
    assert not any(slopes[f"{head}_head.bottleneck.1.bias"].any() for head in mgn.HEADS)


@pytest.mark.whole
def test_one_pass_in_float32_is_as_near_as_rounding_lets_it() -> None:
    """Ten times the recorded noise of losses and of the lengths of gradients."""
    grey = (np.random.RandomState(211).random_sample((16, 192, 64, 3)) * 255).astype(np.float32)
    variables = variables_of(False, np.float32)
    (total, (parts, *_)), grads = gradient(False)(variables, normalised(grey, np.float32), RECORDED["targets"])
    names = [str(name).removeprefix("loss_") for name in RECORDED["loss_names"]]
    np.testing.assert_allclose([parts[name] for name in names], RECORDED["losses_f64"], rtol=1.1e-4)
    np.testing.assert_allclose(total, RECORDED["total_f64"], rtol=1.8e-5)
    found = lengths(torch_names(grads, NET.order), RECORDED["grad_names"])
    np.testing.assert_allclose(found, RECORDED["grad_norms_f64"], rtol=9e-2)


def moments(opt_state: Any) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Adam's count of steps and mean gradient of each parameter, by PyTorch's names."""
    steps: dict[str, int] = {}
    means: dict[str, np.ndarray] = {}
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)):
        if isinstance(node, optax.ScaleByAdamState):
            tree: dict[str, Any] = {}
            for path, leaf in jax.tree_util.tree_leaves_with_path(node.mu):
                *above, last = [entry.key for entry in path]
                functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)[last] = leaf
            own = torch_names(tree, NET.order)
            means |= own
            steps |= dict.fromkeys(own, int(node.count))
    return steps, means


@jax.jit
def updated(params: Any, opt_state: Any, grads: Any, values: MgnValues) -> Any:
    updates, opt_state = mgn_optimizer(MgnOptimization(), values).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@pytest.mark.whole
@pytest.mark.slow
def test_five_steps_across_the_thaw() -> None:
    """Running statistics of trunk and branches stand still with their parameters."""
    names = [str(key) for key in STEPS["param_names"]]
    groups = [str(group) for group in STEPS["groups"]]
    with jax.enable_x64(True):
        variables = variables_of(True, np.float64)
        opt_state = mgn_optimizer(MgnOptimization(), MgnValues(0.0, True)).init(variables["params"])
        begin = now = torch_names(variables["params"], NET.order)
        for step in range(5):
            frozen = bool(STEPS["frozen_f64"][step])
            grey = 127.5 + 60 * blocks(340 + step, STEPS["targets"], 96, 32, np.float64)
            batch = normalised(grey.astype(np.float32), np.float64), STEPS["targets"]
            (total, (parts, _, statistics)), grads = gradient(frozen)(variables, *batch)
            values = MgnValues(STEPS["lr_f64"][step], np.array(frozen))
            params, opt_state = updated(variables["params"], opt_state, grads, values)
            before, now = now, torch_names(params, NET.order)
            slopes = torch_names(grads, NET.order)
            running = torch_names(statistics, NET.order, "batch_stats")
            still = [frozen and group in ("backbone", *mgn.BRANCHES) for group in groups]
            measured = {
                "losses": [parts[str(name).removeprefix("loss_")] for name in STEPS["loss_names"]],
                "total": total,
                "group_delta": of_groups(differences(now, before), groups),
                "group_norm": of_groups(now, groups),
                "group_grad": np.where(still, STEPS["group_grad_f64"][step], of_groups(slopes, groups)),
                "bn_mean_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_mean")])),
                "bn_var_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_var")])),
            }
            for key, value in measured.items():
                expected = STEPS[f"{key}_f64"][step]
                np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=f"{key} at {step}")
            assert not np.any(np.array(of_groups(slopes, groups))[still])
            variables = {"params": params, "batch_stats": statistics}
    np.testing.assert_allclose(lengths(differences(now, begin), names), STEPS["moved_f64"], rtol=1e-6)
    counts, means = moments(opt_state)  # those of what was frozen began at the thaw
    moving = [key for key in names if key in counts]
    recorded = dict(zip(names, zip(STEPS["adam_step_f64"], STEPS["adam_m_norm_f64"], strict=True), strict=True))
    assert [counts[key] for key in moving] == [recorded[key][0] for key in moving] and len({*counts.values()}) == 2
    np.testing.assert_allclose(lengths(means, moving), [recorded[key][1] for key in moving], rtol=1e-6)
    assert not any(recorded[key][0] for key in names if key not in counts)
    for key, first in zip(names, STEPS["first_f64"], strict=True):
        np.testing.assert_allclose(now[key].ravel()[:8], first[: now[key].size], rtol=1e-6, atol=1e-8)


def of_groups(arrays: dict[str, np.ndarray], groups: list[str]) -> list[float]:
    """Lengths of all that is below each name, together."""
    members = {group: [key for key in arrays if key.split(".")[0] == group] for group in groups}
    return [float(np.linalg.norm(lengths(arrays, members[group]))) for group in groups]


def test_strips_and_sizes_that_leave_one_empty() -> None:
    rows = jnp.arange(10.0).reshape(1, 10, 1, 1)
    assert [strip.ravel().tolist() for strip in mgn.strips(rows, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert mgn.mgn(backbone("resnet18"), 20).width((256, 128)) == 2048
    with pytest.raises(UserError, match="cannot cut images of 64x32 in 3; take higher ones, say 384x128"):
        NET.width((64, 32))
    with pytest.raises(UserError, match="vit_tiny is a ViT; take resnet50_ibn"):
        mgn.mgn(backbone("vit_tiny"), 20)
