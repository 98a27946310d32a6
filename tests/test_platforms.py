"""Programs for accelerators hold XLA's own convolutions, whatever machine they are traced on; those for CPUs do not."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.config import Crops
from cion_jax.data.augment import multi_crop
from cion_jax.models import ops
from cion_jax.models.layers import Attention, Conv, Linear
from cion_jax.models.zoo import Backbone, backbone
from shallow import FAMILIES

IMAGES = jax.ShapeDtypeStruct((2, 64, 32, 3), jnp.float32)


def lowered(function: Callable, platforms: Sequence[str], *inputs: object) -> list[str]:
    """The StableHLO of a function, traced once, for platforms that need not be here."""
    traced = jax.jit(function).trace(*inputs)
    return [traced.lower(lowering_platforms=(platform,)).as_text() for platform in platforms]


def training_programs(model: Backbone, *platforms: str) -> list[str]:
    """Forward and backward, to parameters and images."""

    def loss(params: dict, rest: dict, images: jax.Array) -> jax.Array:
        features, _ = model.apply(rest | {"params": params}, images, train=True)
        return jnp.square(features).sum()

    shapes = model.shapes()
    return lowered(jax.grad(loss, argnums=(0, 2)), platforms, shapes["params"], shapes, IMAGES)


def convolutions(program: str) -> int:
    return program.count("stablehlo.convolution(")


def convolutions_of(model: Backbone) -> int:
    """By its kernels, (size, size, C / groups, D); 1x1 without groups is a product."""
    kernels = [leaf.shape for leaf in jax.tree.leaves(model.shapes()["params"]) if leaf.ndim == 4]
    return sum(size > 1 or (inputs == 1 and features > 1) for size, _, inputs, features in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_accelerators_get_xlas_own_convolutions_and_cpus_do_not(name: str) -> None:
    gpu, tpu, cpu = (backbone(name, platform=platform, **FAMILIES[name]) for platform in ("gpu", "tpu", "cpu"))
    # each forward, and backward to its kernel and to its input; on TPUs products over maps are among them
    own = 3 * convolutions_of(gpu)
    (on_gpu,) = training_programs(gpu, "cuda")
    (on_tpu,) = training_programs(tpu, "tpu")
    assert convolutions(on_tpu) >= convolutions(on_gpu) == own > 0
    for program in (on_gpu, on_tpu):
        assert "stablehlo.case" not in program and "stablehlo.while" not in program
        assert program.count('"stablehlo.select_and_scatter"(') == name.startswith("resnet")  # the pool's gradient
    (on_cpu,) = training_programs(cpu, "cpu")
    assert convolutions(on_cpu) < 3 * convolutions_of(gpu)
    assert "stablehlo.case" not in on_cpu and "stablehlo.select_and_scatter" not in on_cpu
    is_depthwise = name.split("_")[0] in ("convnext", "edgenext", "ghostnet", "repvit", "fastvit")
    assert ("stablehlo.while" in on_cpu) == is_depthwise


def test_only_cpus_flatten_rows_before_a_product() -> None:
    layer, x = Linear(5), jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    programs = {}
    for platform in ("cpu", "tpu"):
        with ops.traced_for(platform):
            (programs[platform],) = lowered(lambda *inputs: layer.apply(*inputs), [platform], variables, x)
    assert "stablehlo.reshape" in programs["cpu"] and "tensor<2x3x4xf32>, tensor<4x5xf32>" in programs["tpu"]


def test_a_platform_ends_with_its_block_and_the_default_is_that_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = Conv(4, 3, groups=4)
    x = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def count() -> int:
        return convolutions(*lowered(lambda *inputs: layer.apply(*inputs), ["cpu"], variables, x))

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert count() == 0
    with pytest.raises(ZeroDivisionError), ops.traced_for("tpu"):
        assert count() == 1
        with ops.traced_for("cpu"):
            assert count() == 0
        assert count() == 1
        raise ZeroDivisionError
    assert count() == 0
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert count() == 1
    assert backbone("resnet18").platform == "gpu"


def test_a_backbone_of_another_platform_is_another_static_argument() -> None:
    one, same, other = (backbone("convnext_tiny", platform=platform) for platform in ("cpu", "cpu", "gpu"))
    assert one == same and hash(one) == hash(same) and one != other
    traced = partial(jax.jit, static_argnums=0)(lambda model, *inputs: model.apply(*inputs))
    shapes = one.shapes()
    counts = [convolutions(traced.lower(model, shapes, IMAGES).as_text()) for model in (one, other, same)]
    assert counts[0] == counts[2] < counts[1] == convolutions_of(one)


def test_all_forms_compute_the_same() -> None:
    models = [backbone("resnet10_half_ibn", platform=platform) for platform in ("cpu", "tpu", "gpu")]
    variables = models[0].init(jax.random.key(0))
    images = np.random.default_rng(0).standard_normal(IMAGES.shape, np.float32)
    by_cpu, *others = (jax.jit(model.apply)(variables, images) for model in models)
    for features in others:
        np.testing.assert_allclose(by_cpu, features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("heads", "width", "groups"), [(3, 32, 3), (6, 32, 6), (8, 32, 2), (4, 64, 2), (3, 64, 3)])
def test_heads_side_by_side_find_what_they_find_alone(heads: int, width: int, groups: int) -> None:
    """And pass back what they pass back alone; each has a bias of its own."""
    layer = Attention(heads)
    with jax.enable_x64():
        draw = np.random.default_rng(0).standard_normal
        x, weights, bias = draw((2, 5, heads * width)), draw((2, 5, heads * width)), draw((heads, 5, 5))
        variables = layer.init(jax.random.key(0), x, bias)
        variables = jax.tree.map(lambda leaf: draw(leaf.shape) * 0.1, variables)
        found = {}
        for platform in ("gpu", "tpu"):
            with ops.traced_for(platform):
                y, back = jax.vjp(layer.apply, variables, x, bias)
                found[platform] = y, back(jnp.asarray(weights))
                q, *_ = ops.to_heads(x, np.zeros((heads * width, 3 * heads * width)), heads)
            assert q.shape == ((2, groups, 5, heads * width // groups) if platform == "tpu" else (2, heads, 5, width))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), found["tpu"], found["gpu"])


def test_a_fused_form_stays_on_its_platform() -> None:
    assert backbone("repvit_m0_9", platform="tpu").fused_form().platform == "tpu"


def test_crops_are_made_in_loops_only_on_a_cpu() -> None:
    crops = Crops(global_size=(32, 16), local_size=(16, 8), local_crops=1)
    images, key = jax.ShapeDtypeStruct((4, 32, 16, 3), jnp.uint8), jax.eval_shape(lambda: jax.random.key(0))

    def loops(**options: bool) -> np.ndarray:
        make = partial(multi_crop, crops=crops, dtype=jnp.float32, **options)
        return np.array([program.count("stablehlo.while") for program in lowered(make, platforms, images, key)])

    platforms = ("tpu", "cuda", "cpu")
    assert (loops()[:2] == 0).all() and (loops(on_cpu=True) > loops()).all()


def test_only_the_door_and_the_zoo_know_of_platforms() -> None:
    """Families and layers are written once, for all platforms."""
    folder = Path(ops.__file__).parent
    knowing = {path.name for path in folder.glob("*.py") if "platform" in path.read_text()}
    assert knowing == {"ops.py", "zoo.py", "complexity.py"}
