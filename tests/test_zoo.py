"""Parity of all backbones with the published PyTorch models: names, features, statistics."""

import functools
import hashlib

import jax
import numpy as np
import pytest
from golden_weights import golden, images, index, manifest, state

from cion_jax.models.zoo import ZOO, Backbone, backbone
from cion_jax.torch_io.mapping import from_state_dict, state_dict

#: Each program runs once: compiling it fast beats compiling it well.
QUICK = {"xla_backend_optimization_level": 0}
NAMES = sorted(ZOO, key=lambda name: manifest(name)["params"])


def without_drop_path(name: str) -> Backbone:
    """As the golden values were taken."""
    return backbone(name, drop_path=0.0) if index()[name]["default_drop_path_max"] else backbone(name)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.sqrt(np.mean(np.square(b, dtype=np.float64))))


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_shapes_are_those_of_pytorch_in_its_order(name: str) -> None:
    model = backbone(name)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.shapes())
    found = [[key, list(value.shape), str(value.dtype)] for key, value in state_dict(zeros, model.order).items()]
    assert found == [row[:3] for row in manifest(name)["keys"]]


@pytest.mark.parametrize("name", NAMES)
def test_features_and_statistics_equal_the_golden_ones(name: str) -> None:
    recorded, noise, model = golden(name), index()[name]["f32_noise"], without_drop_path(name)
    weights = state(name)
    floats = b"".join(value.astype("<f4").tobytes() for value in weights.values() if value.dtype == np.float32)
    assert hashlib.sha256(floats).hexdigest() == str(recorded["weights_sha256"])
    variables = from_state_dict(model.shapes(), weights)
    back = state_dict(variables, model.order)
    assert list(back) == list(weights)
    assert all(np.array_equal(back[key], weights[key]) for key in weights)

    def check(kind: str, values: np.ndarray) -> None:
        assert distance(values, recorded[kind]) <= max(1e-4, 10 * noise[kind]), kind

    large, small = images()
    evaluate = jax.jit(model.apply, compiler_options=QUICK)
    check("eval_global", evaluate(variables, large))
    check("eval_local", evaluate(variables, small))
    train = jax.jit(functools.partial(model.apply, train=True), compiler_options=QUICK)
    features, moved = train(variables, large)
    check("train_global", features)
    after = state_dict(moved, model.order)
    for number, norm in enumerate(index()[name]["bn_names"]):
        for kind in ("running_mean", "running_var"):
            expected = recorded[f"bn{number}_{kind}"]
            assert distance(after[f"{norm}.{kind}"], expected) <= max(1e-4, 10 * noise["train_global"])
