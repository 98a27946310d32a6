"""The projection head against the golden values of the published one."""

import jax
import numpy as np

from cion_jax.models import head
from cion_jax.weights.mapping import from_state_dict, state_dict
from golden_weights import golden, manifest, weight

SHAPES = {
    "mlp.0.weight": (2048, 384), "mlp.0.bias": (2048,), "mlp.2.weight": (2048, 2048), "mlp.2.bias": (2048,),
    "mlp.4.weight": (256, 2048), "mlp.4.bias": (256,), "last_layer.weight_g": (4096, 1),
    "last_layer.weight_v": (4096, 256),
}  # fmt: skip


def test_keys_and_shapes_are_those_of_pytorch() -> None:
    shapes = jax.eval_shape(lambda key: head.init(key, 2048, 65336), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    result = {key: list(value.shape) for key, value in state_dict(zeros, head.ORDER.split()).items()}
    assert list(result.items()) == [(key, shape) for key, shape, *_ in manifest("dino_head")["keys"]]


def test_outputs_equal_the_golden_ones() -> None:
    shapes = jax.eval_shape(lambda key: head.init(key, 384, 4096), jax.random.key(0))
    variables = from_state_dict(shapes, {key: weight(key, shape) for key, shape in SHAPES.items()})
    features = np.random.RandomState(2).standard_normal((4, 384)).astype(np.float32)
    recorded = golden("dino_head")
    np.testing.assert_allclose(head.bottleneck(variables, features), recorded["bottleneck"], atol=1e-6)
    np.testing.assert_allclose(head.apply(variables, features), recorded["output"], atol=3e-6)


def test_fresh_prototypes_have_unit_length_and_pytorch_spread() -> None:
    variables = head.init(jax.random.key(0), 64, 512)
    np.testing.assert_allclose(np.linalg.norm(head.prototypes(variables), axis=1), 1, rtol=1e-5)
    rows = np.asarray(variables["params"]["last_layer"]["weight_v"])
    assert abs(rows.max() - 1 / 16) < 1e-3 and abs(rows.std() - 1 / 16 / np.sqrt(3)) < 1e-3
