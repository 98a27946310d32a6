"""The encoder of cluster contrast against golden values: names, features, three steps with the hard memory."""

import functools
import hashlib
from typing import Any

import jax
import numpy as np
import optax
import pytest

from cion_jax.config import ClusterContrastOptimization
from cion_jax.errors import UserError
from cion_jax.finetune import encoder
from cion_jax.finetune.losses import unit
from cion_jax.finetune.memory import cluster_loss, update_hard
from cion_jax.finetune.optimizer import cluster_contrast_optimizer
from cion_jax.finetune.pooling import gem
from cion_jax.finetune.schedules import ClusterContrastValues
from cion_jax.models.zoo import Variables, backbone
from cion_jax.weights.mapping import from_state_dict, state_dict
from compiling import USUAL
from finetune_golden import blocks, close, differences, lengths, rule_state, torch_names
from golden_weights import golden, images, manifest

pytestmark = pytest.mark.xdist_group("encoder")  # one after the other: they share compiled functions

NET = encoder.encoder(backbone("resnet50_ibn"))
RECORDED = golden("finetune/ccontrast_resnet_ibn50a")
MANIFEST = manifest("finetune/ccontrast_resnet_ibn50a")
#: The published shares, 0.2 of the old row and 0.8 of the new one, are rounded to float32.
MOMENTUM = float(np.float64(np.float32(0.2)) / (np.float64(np.float32(0.2)) + np.float64(np.float32(0.8))))


def by_rule() -> dict[str, np.ndarray]:
    """The base by the keys of the backbone from which it is loaded."""
    return rule_state("finetune/ccontrast_resnet_ibn50a", lambda key: MANIFEST["loaded_from"][key] or key)


def variables_of(dtype: Any) -> Variables:
    template = NET.shapes()
    return jax.tree.map(lambda leaf: leaf.astype(dtype), from_state_dict(template, by_rule()))


@functools.cache
def evaluate() -> Any:
    return jax.jit(NET.apply)


@jax.jit
def gradient(variables: Variables, memory: Any, crops: Any, labels: Any) -> Any:
    def loss(params: Any) -> Any:
        features, moved = NET.apply(variables | {"params": params}, crops, train=True)
        return cluster_loss(memory, features, labels)[0], (features, moved["batch_stats"])

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


@jax.jit
def updated(params: Any, opt_state: Any, grads: Any, values: ClusterContrastValues) -> Any:
    updates, opt_state = cluster_contrast_optimizer(ClusterContrastOptimization(), values).update(
        grads, opt_state, params
    )
    return optax.apply_updates(params, updates), opt_state


def test_names_are_those_of_the_published_weights_in_their_order() -> None:
    weights = state_dict(variables_of(np.float32), NET.order)
    assert [[key, list(value.shape)] for key, value in weights.items()] == [row[:2] for row in MANIFEST["keys"]]
    floats = b"".join(value.astype("<f4").tobytes() for value in weights.values() if value.dtype == np.float32)
    assert hashlib.sha256(floats).hexdigest() == str(RECORDED["weights_sha256"])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-8), (np.float32, 5e-5)], ids=["float64", "float32"])
def test_features_of_a_loaded_backbone_and_of_a_trained_encoder(dtype: Any, bound: float) -> None:
    """In float32 to ten times what rounding makes of the reference."""
    weights = by_rule()
    body = {MANIFEST["loaded_from"][key]: value for key, value in weights.items() if key.startswith("base.")}
    with jax.enable_x64(dtype == np.float64):
        loaded = from_state_dict(NET.backbone.shapes(), body)
        loaded = jax.tree.map(lambda leaf: leaf.astype(dtype), NET.begin(jax.random.key(0), loaded))
        crops = images()[0].astype(dtype)
        close(evaluate()(loaded, crops), RECORDED["eval_fresh_f64"], bound)
        close(evaluate()(variables_of(dtype), crops), RECORDED["eval_f64"], bound)


def test_the_first_loss_in_float32_is_as_near_as_rounding_lets_it() -> None:
    """Compiled to the letter: what XLA optimises rounds by 8e-6 or 1.3e-5, the reference by 6e-7."""
    memory = unit(np.random.RandomState(290).standard_normal((6, 2048)).astype(np.float32))
    crops = blocks(320, RECORDED["targets"], 96, 48)
    to_the_letter = jax.jit(gradient, compiler_options=USUAL | {"xla_backend_optimization_level": 0})
    (loss, _), _ = to_the_letter(variables_of(np.float32), memory, crops, RECORDED["targets"])
    np.testing.assert_allclose(loss, RECORDED["traj_loss_f64"][0], rtol=6e-6)


def test_three_steps_with_the_hard_memory() -> None:
    names = [str(key) for key in RECORDED["traj_param_names"]]
    labels = RECORDED["targets"]
    values = ClusterContrastValues(float(RECORDED["lr"]))
    with jax.enable_x64(True):
        variables = variables_of(np.float64)
        opt_state = cluster_contrast_optimizer(ClusterContrastOptimization(), values).init(variables["params"])
        rows = np.random.RandomState(290).standard_normal((6, 2048)).astype(np.float32)
        memory = unit(rows.astype(np.float64))
        begin = now = torch_names(variables["params"], NET.order)
        for step in range(3):
            crops = blocks(320 + step, labels, 96, 48).astype(np.float64)
            (loss, (features, statistics)), grads = gradient(variables, memory, crops, labels)
            if step == 0:
                close(features, RECORDED["train_feat0_f64"], 1e-8)
            params, opt_state = updated(variables["params"], opt_state, grads, values)
            variables = {"params": params, "batch_stats": statistics}
            old, memory = memory, update_hard(memory, features, labels, momentum=MOMENTUM)
            before, now = now, torch_names(params, NET.order)
            slopes = torch_names(grads, NET.order)
            running = torch_names(statistics, NET.order, "batch_stats")
            measured = {
                "loss": loss,
                "grad_norm_all": lengths(slopes, names),
                "norm": np.linalg.norm(lengths(now, names)),
                "delta": np.linalg.norm(lengths(differences(now, before), names)),
                "memory_norm_change": np.linalg.norm(memory - old),
                "bn_mean_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_mean")])),
                "bn_var_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_var")])),
            }
            for key, value in measured.items():
                expected = RECORDED[f"traj_{key}_f64"][step]
                np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max(), err_msg=key)
    np.testing.assert_allclose(lengths(differences(now, begin), names), RECORDED["traj_moved_f64"], rtol=1e-6)
    for key, first in zip(names, RECORDED["traj_first_f64"], strict=True):
        np.testing.assert_allclose(now[key].ravel()[:8], first[: now[key].size], rtol=1e-6, atol=1e-8)
    close(memory[:, :64], RECORDED["memory_f64"], 1e-6)


def test_only_resnets_have_such_a_map() -> None:
    with pytest.raises(UserError, match="swin_tiny is a Swin; take resnet50_ibn"):
        encoder.encoder(backbone("swin_tiny"))


def test_pooling_lies_between_mean_and_maximum_and_ignores_what_is_negative() -> None:
    maps = np.array([[-5.0, 1.0], [2.0, 4.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(gem(maps, np.ones(1)), [[7 / 4]], rtol=1e-6)
    np.testing.assert_allclose(gem(maps, np.full(1, 3.0)), [[(73 / 4) ** (1 / 3)]], rtol=1e-6)
    np.testing.assert_allclose(gem(maps, np.full(1, 40.0)), [[4]], rtol=0.05)
