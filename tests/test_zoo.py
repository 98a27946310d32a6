"""Parity of all backbones with the published PyTorch models: names, features, statistics."""

import functools
import hashlib

import jax
import numpy as np
import pytest

from cion_jax.models.complexity import PUBLISHED, layers, measure, multiply_adds, parameters
from cion_jax.models.resnet import SMALL
from cion_jax.models.zoo import ZOO, Backbone, backbone
from cion_jax.weights.mapping import from_state_dict, state_dict
from golden_weights import golden, images, index, manifest, state

WHOLE = [pytest.mark.whole, pytest.mark.slow]
NAMES = sorted((name for name in ZOO if name != SMALL), key=lambda name: manifest(name)["params"])
#: The smallest of each family, with and without instance norms, and the one that most people take.
SHOWN = {*{ZOO[name].name: name for name in reversed(NAMES)}.values(), "resnet18_ibn", "resnet50_ibn"}


def without_drop_path(name: str) -> Backbone:
    """As the golden values were taken."""
    return backbone(name, drop_path=0.0) if index()[name]["default_drop_path_max"] else backbone(name)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.sqrt(np.mean(np.square(b, dtype=np.float64))))


@pytest.mark.parametrize("name", NAMES)
def test_keys_and_shapes_are_those_of_pytorch_in_its_order(name: str) -> None:
    model = backbone(name)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model.shapes())
    result = [[key, list(value.shape), str(value.dtype)] for key, value in state_dict(zeros, model.order).items()]
    assert result == [row[:3] for row in manifest(name)["keys"]]
    assert parameters(model.shapes()) == manifest(name)["params"]
    published, _ = PUBLISHED.get(name, (None, None))
    assert published in (None, round(manifest(name)["params"] / 1e6, 2))


def assert_golden(name: str, kind: str, values: np.ndarray) -> None:
    assert distance(values, golden(name)[kind]) <= max(1e-4, 10 * index()[name]["f32_noise"][kind]), kind


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_the_golden_ones(name: str) -> None:
    recorded, model, weights = golden(name), without_drop_path(name), state(name)
    floats = b"".join(value.astype("<f4").tobytes() for value in weights.values() if value.dtype == np.float32)
    assert hashlib.sha256(floats).hexdigest() == str(recorded["weights_sha256"])
    variables = from_state_dict(model.shapes(), weights)
    back = state_dict(variables, model.order)
    assert list(back) == list(weights)
    assert all(np.array_equal(back[key], weights[key]) for key in weights)

    large, _ = images()
    assert_golden(name, "eval_global", jax.jit(model.apply)(variables, large))


@pytest.mark.parametrize("name", [name if name in SHOWN else pytest.param(name, marks=WHOLE) for name in NAMES])
def test_another_size_and_statistics_equal_the_golden_ones(name: str) -> None:
    recorded, model = golden(name), without_drop_path(name)
    variables = from_state_dict(model.shapes(), state(name))
    large, small = images()
    assert_golden(name, "eval_local", jax.jit(model.apply)(variables, small))
    features, moved = jax.jit(functools.partial(model.apply, train=True))(variables, large)
    assert_golden(name, "train_global", features)
    after = state_dict(moved, model.order)
    allowed = max(1e-4, 10 * index()[name]["f32_noise"]["train_global"])
    for number, norm in enumerate(index()[name]["bn_names"]):
        for kind in ("running_mean", "running_var"):
            assert distance(after[f"{norm}.{kind}"], recorded[f"bn{number}_{kind}"]) <= allowed


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_tiny", "ghostnet_1_0", "repvit_m0_9", "fastvit_s12", "vit_tiny", "swin_tiny"]
)
def test_costs_are_those_of_the_paper_but_for_norms_and_activations(name: str) -> None:
    """The paper's figures are a little higher: its count seems to hold elementwise operations too, ours does not."""
    size = measure(backbone(name))
    assert size.published_multiply_adds is not None
    assert -0.04 <= size.multiply_adds / 1e9 - size.published_multiply_adds <= 0.005
    rows = layers(backbone(name))
    assert sum(row.parameters for row in rows) == size.parameters


def test_multiply_adds_of_known_layers() -> None:
    """A stem by hand: 7x7 over 3 channels to 64, on 128x64 places."""
    traced = jax.make_jaxpr(lambda x, k: jax.lax.conv(x, k, (2, 2), "SAME"))(
        np.zeros((1, 3, 256, 128)), np.zeros((64, 3, 7, 7))
    )
    assert multiply_adds(traced.jaxpr) == 128 * 64 * 64 * 3 * 49
    product = jax.make_jaxpr(lambda a, b: jax.jit(lambda: a @ b)())(np.zeros((5, 7)), np.zeros((7, 11)))
    assert multiply_adds(product.jaxpr) == 5 * 7 * 11
