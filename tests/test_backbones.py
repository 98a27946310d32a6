"""What every family promises beyond parity: other sizes, types, rematerialisation, features by name, drop path."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.models.zoo import Backbone, backbone
from shallow import FAMILIES, variables

IMAGES = np.random.default_rng(0).standard_normal((2, 64, 32, 3)).astype(np.float32)


def small(name: str, **options: Any) -> Backbone:
    return backbone(name, image_size=(64, 32), **FAMILIES[name], **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_size_and_bfloat16_and_features_by_name(name: str) -> None:
    model = small(name)
    apply = jax.jit(lambda variables, images: model.apply(variables, images, return_features=True))
    features, maps = apply(variables(name), IMAGES)
    assert {"stage1", "stage4"} <= set(maps) or "tokens" in maps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(maps))
    half, _ = apply(variables(name), IMAGES.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(np.float32) - features).max() < 0.1 * np.abs(features).max()
    for height, width in ((384, 128), (100, 60)):
        images = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
        assert jax.eval_shape(model.apply, variables(name), images).shape == (1, features.shape[1])


@pytest.mark.parametrize("name", ["resnet18_ibn", *(name for name in FAMILIES if not name.startswith("resnet"))])
def test_rematerialisation_is_there_when_asked_for(name: str) -> None:
    shapes = backbone(name).shapes()
    forward = [partial(backbone(name, remat=remat).apply, train=True) for remat in (False, True)]
    programs = [jax.make_jaxpr(each)(shapes, IMAGES, rng=jax.random.key(1)) for each in forward]
    plain, again = (sum(step.primitive.name.startswith("remat") for step in program.eqns) for program in programs)
    assert plain == 0 and again >= 8


def gradient(model: Backbone) -> Callable:
    def loss(params: dict, rest: dict) -> jax.Array:
        return jnp.square(model.apply(rest | {"params": params}, IMAGES, train=True, rng=jax.random.key(1))[0]).sum()

    return jax.grad(loss)


@pytest.mark.parametrize("name", ["resnet10_half_ibn", "vit_tiny"])
def test_rematerialisation_changes_no_number(name: str) -> None:
    start = variables(name)
    plain, again = (jax.jit(gradient(small(name, remat=remat)))(start["params"], start) for remat in (False, True))
    for one, other in zip(*map(jax.tree.leaves, (plain, again)), strict=True):
        np.testing.assert_allclose(other, one, atol=2e-4 * (1 + np.abs(one).max()))


@pytest.mark.parametrize(
    "name", ["convnext_tiny", "edgenext_x_small", "fastvit_sa12", "vit_tiny", "swin_tiny", "volo_d1"]
)
def test_drop_path_is_random_in_training_only(name: str) -> None:
    model = small(name, drop_path=0.5)
    train = jax.jit(lambda variables, key: model.apply(variables, IMAGES, train=True, rng=key)[0])
    one, same, other = (train(variables(name), jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    plain, dropping = (str(jax.make_jaxpr(each.apply)(variables(name), IMAGES)) for each in (small(name), model))
    assert plain == dropping


def test_position_tables_follow_the_image_size() -> None:
    table = backbone("vit_tiny", image_size=(384, 128)).shapes()["params"]["pos_embed"]
    assert table.shape == (1, 1 + 24 * 8, 192)
    assert backbone("volo_d1", image_size=(384, 128)).shapes()["params"]["pos_embed"].shape == (1, 24, 8, 384)


def test_parameters_can_be_kept_in_another_type() -> None:
    variables = backbone("resnet18").init(jax.random.key(0), param_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.bfloat16)}


def test_an_unknown_backbone_is_answered_with_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean resnet50_ibn"):
        backbone("resnet50_inb")
    with pytest.raises(UserError, match="resnet18 has no option depth"):
        backbone("resnet18", depth=3)


def test_statistics_of_a_fresh_model_are_untouched_by_init() -> None:
    for leaf in jax.tree.leaves(backbone("resnet18").init(jax.random.key(0))["batch_stats"]):
        assert set(np.unique(leaf)) <= {0.0, 1.0}


def test_only_the_unknown_options_are_named() -> None:
    with pytest.raises(UserError, match=r"^vit_tiny has no option height$"):
        backbone("vit_tiny", height=3, remat=True)
