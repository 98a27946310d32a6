"""BNNeck against golden values of TransReID: names, features, losses, gradients, six steps of SGD."""

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cion_jax.config import BnneckOptimization
from cion_jax.finetune import bnneck
from cion_jax.finetune.losses import cross_entropy, hardest_distances, triplet_loss
from cion_jax.finetune.optimizer import bnneck_optimizer
from cion_jax.finetune.schedules import BnneckValues
from cion_jax.models.zoo import Backbone, Variables, backbone
from cion_jax.weights.mapping import from_state_dict, state_dict
from finetune_golden import blocks, close, differences, lengths, rule_state, torch_names
from golden_weights import golden, images, manifest

pytestmark = pytest.mark.xdist_group("bnneck")  # one after the other: they share compiled functions

OPTIONS: dict[str, dict[str, Any]] = {"resnet18_ibn": {}, "vit_small": {"always_resample": True}}
CLASSES = 20


def model_of(name: str, **options: Any) -> Backbone:
    return backbone(name, **OPTIONS[name] | options)


def small_of(name: str) -> tuple[int, int]:
    rows, columns = golden(f"finetune/transreid_{name}")["small"]
    return int(rows), int(columns)


def order_of(name: str) -> list[str]:
    return [*bnneck.ORDER.split(), *backbone(name).order]


def variables_of(name: str, dtype: Any) -> Variables:
    """By the rule, where the backbone's part has the names of the backbone alone."""
    model = model_of(name)
    width = model.width((256, 128))
    make = functools.partial(bnneck.init, width=width, classes=CLASSES)
    template = jax.eval_shape(make, jax.random.key(0), model.shapes())
    state = rule_state(f"finetune/transreid_{name}", lambda key: key.removeprefix("base."))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), from_state_dict(template, state))


def for_small_images(name: str, variables: Variables) -> Variables:
    """A ViT's positions halfway between the middle two of each four, along both axes: bilinear at a quarter."""
    if name == "resnet18_ibn":
        return variables
    base = variables["params"]["base"]
    table = base["pos_embed"][:, 1:].reshape(1, 16, 8, -1)
    table = (table[:, 1::4] + table[:, 2::4]) / 2
    table = (table[:, :, 1::4] + table[:, :, 2::4]) / 2
    positions = jnp.concatenate([base["pos_embed"][:, :1], table.reshape(1, 8, -1)], axis=1)
    return variables | {"params": variables["params"] | {"base": base | {"pos_embed": positions}}}


@functools.cache
def gradient_of(name: str) -> Any:
    """The compiled gradient for small images, for whatever type they have."""
    model = model_of(name, image_size=small_of(name))

    def loss(params: Any, variables: Variables, crops: Any, labels: Any) -> Any:
        (logits, features), moved = bnneck.apply(model, variables | {"params": params}, crops)
        entropy = cross_entropy(logits, labels)
        triplet = triplet_loss(*hardest_distances(features, labels))
        parts = {"ce": entropy, "triplet": triplet, "feat": features, "logits": logits}
        return entropy + triplet, (parts, moved["batch_stats"])

    return jax.jit(
        lambda variables, *batch: jax.value_and_grad(loss, has_aux=True)(variables["params"], variables, *batch)
    )


def run(name: str, variables: Variables, seed: int, dtype: Any) -> Any:
    labels = golden(f"finetune/transreid_{name}")["targets"]
    crops = blocks(seed, labels, *small_of(name)).astype(dtype)
    (loss, (parts, statistics)), grads = gradient_of(name)(variables, crops, labels)
    return parts | {"loss": loss}, grads, statistics


@pytest.mark.parametrize("name", OPTIONS)
def test_names_are_those_of_the_published_weights_in_their_order(name: str) -> None:
    state = state_dict(variables_of(name, np.float32), order_of(name))
    rows = manifest(f"finetune/transreid_{name}")["keys"]
    assert [[key, list(value.shape)] for key, value in state.items()] == [row[:2] for row in rows]
    floats = b"".join(value.astype("<f4").tobytes() for value in state.values() if value.dtype == np.float32)
    assert hashlib.sha256(floats).hexdigest() == str(golden(f"finetune/transreid_{name}")["weights_sha256"])


@pytest.mark.parametrize("name", OPTIONS)
def test_features_before_and_after_the_neck(name: str) -> None:
    recorded = golden(f"finetune/transreid_{name}")
    with jax.enable_x64(True):
        variables = variables_of(name, np.float64)
        crops = images()[0].astype(np.float64)
        before = np.asarray(jax.jit(model_of(name).apply)(bnneck.backbone_variables(variables), crops))
        params, statistics = (variables[part]["bottleneck"] for part in ("params", "batch_stats"))
        after, still = bnneck.neck(params, statistics, before, train=False)
    close(before, recorded["eval_before_f64"], 1e-6)
    close(after, recorded["eval_after_f64"], 1e-6)
    assert all(np.array_equal(still[key], statistics[key]) for key in statistics)
    if name == "vit_small":  # at its own size a table that is not resampled gives other features
        plain = jax.jit(backbone(name).apply)(bnneck.backbone_variables(variables_of(name, np.float32)), images()[0])
        close(plain, recorded["eval_before_no_resample_f64"], 2e-5)
        assert np.abs(plain - before).max() > 0.01


#: Ten times the reference's own noise in float32: features, logits, loss, gradient norms.
FLOAT32 = {"resnet18_ibn": (2.6e-5, 1.4e-4, 5e-6, 2.4e-3), "vit_small": (2.9e-5, 6.4e-5, 4e-6, 2.1e-3)}


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", OPTIONS)
def test_one_forward_and_backward_pass(name: str, dtype: Any) -> None:
    recorded = golden(f"finetune/transreid_{name}")
    features, logits, loss, gradients = FLOAT32[name] if dtype == np.float32 else (1e-7,) * 4
    with jax.enable_x64(dtype == np.float64):
        parts, grads, statistics = run(name, for_small_images(name, variables_of(name, dtype)), 280, dtype)
    close(parts["feat"], recorded["train_feat_f64"], features)
    close(parts["logits"], recorded["train_logits_f64"], logits)
    np.testing.assert_allclose(parts["loss"], recorded["train_loss_f64"], rtol=loss)
    norms = lengths(torch_names(grads, order_of(name)), recorded["grad_names"])
    scale = np.abs(recorded["grad_norms_f64"]).max()
    np.testing.assert_allclose(norms, recorded["grad_norms_f64"], rtol=gradients, atol=gradients * 1e-3 * scale)
    assert not grads["bottleneck"]["bias"].any()
    for ours, published in (("mean", "running_mean"), ("var", "running_var")):
        close(statistics["bottleneck"][ours], recorded[f"bottleneck_{published}_f64"], features)


@jax.jit
def updated(params: Any, opt_state: Any, grads: Any, values: BnneckValues) -> Any:
    updates, opt_state = bnneck_optimizer(BnneckOptimization(), values).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


@pytest.mark.parametrize("name", OPTIONS)
def test_six_steps_of_training(name: str) -> None:
    recorded = golden(f"finetune/transreid_{name}")
    names = [str(key) for key in recorded["traj_param_names"]]
    rates = [*map(BnneckValues, recorded["traj_lr_weight_f64"], recorded["traj_lr_bias_f64"])]
    with jax.enable_x64(True):
        variables = for_small_images(name, variables_of(name, np.float64))
        opt_state = bnneck_optimizer(BnneckOptimization(), rates[0]).init(variables["params"])
        begin = now = torch_names(variables["params"], order_of(name))
        for step, values in enumerate(rates):
            parts, grads, statistics = run(name, variables, 300 + step, np.float64)
            params, opt_state = updated(variables["params"], opt_state, grads, values)
            variables = {"params": params, "batch_stats": statistics}
            before, now = now, torch_names(params, order_of(name))
            slopes = torch_names(grads, order_of(name))
            running = torch_names(statistics, order_of(name), "batch_stats")
            measured = {
                **{key: parts[key] for key in ("loss", "ce", "triplet")},
                "grad_norm_all": lengths(slopes, names),
                "norm": np.linalg.norm(lengths(now, names)),
                "delta": np.linalg.norm(lengths(differences(now, before), names)),
                "bn_mean_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_mean")])),
                "bn_var_norm": np.linalg.norm(lengths(running, [key for key in running if key.endswith("_var")])),
            }
            for key, value in measured.items():
                expected = recorded[f"traj_{key}_f64"][step]
                np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max(), err_msg=key)
    moved = differences(now, begin)
    np.testing.assert_allclose(lengths(moved, names), recorded["traj_moved_f64"], rtol=1e-6, atol=1e-9)
    for key, first in zip(names, recorded["traj_first_f64"], strict=True):
        np.testing.assert_allclose(now[key].ravel()[:8], first[: now[key].size], rtol=1e-6, atol=1e-8)
    last = rates[-1]
    momentum = {  # the last step undone
        key: change / (last.bias_learning_rate if "bias" in key else last.learning_rate)
        for key, change in differences(now, before).items()
    }
    np.testing.assert_allclose(lengths(momentum, names), recorded["traj_momentum_norm_f64"], rtol=1e-6, atol=1e-9)


def test_a_fresh_neck_and_classifier() -> None:
    model = backbone("resnet18")
    variables = bnneck.init(jax.random.key(0), model.init(jax.random.key(1)), 512, 700)
    rows = np.asarray(variables["params"]["classifier"]["weight"])
    assert rows.shape == (700, 512) and abs(rows.std() - 0.001) < 1e-5
    features = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    params, statistics = (variables[part]["bottleneck"] for part in ("params", "batch_stats"))
    np.testing.assert_allclose(bnneck.neck(params, statistics, features, train=False)[0], features, rtol=1e-5)
