"""Fused networks compute what the trained ones do, with less."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cion_jax.models import fastvit, fusing, repvit
from cion_jax.models.layers import Conv, Linear
from cion_jax.models.norms import BatchNorm
from cion_jax.models.ops import traced_for

# 2 + 1 blocks in the first stages: both RepViT's blocks with and those without squeeze-excite
NETWORKS = {
    "repvit": (repvit, repvit.RepViT(8, (2, 1, 1, 2))),
    "fastvit": (fastvit, fastvit.FastViT((2, 1, 1, 1), attention=False, width=8)),
    "fastvit with attention": (fastvit, fastvit.FastViT((1, 1, 1, 2), attention=True, width=8)),
}
RANDOM = np.random.RandomState(0)


def randomised(variables: Any, seed: int = 0) -> Any:
    """Values that make every parameter and statistic count, whatever the initial ones are."""
    random = np.random.RandomState(seed)

    def value(path: Any, leaf: Any) -> np.ndarray:
        name, z = path[-1].key, random.standard_normal(leaf.shape)
        if name == "var":
            values = random.uniform(0.5, 2, leaf.shape)
        elif name == "kernel":
            values = z / np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            values = 0.2 * z + (name == "scale") + 0.5 * name.startswith("layer_scale")
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(value, variables)


def trained(network: nn.Module, shape: tuple[int, ...] = (2, 64, 32, 3), seed: int = 0) -> tuple[Any, np.ndarray]:
    """Random variables without intermediates, and an image."""
    image = RANDOM.standard_normal(shape).astype(np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), image, False))
    return randomised({name: shapes[name] for name in shapes if name != "features"}, seed), image


def distance(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a) - b).max() / np.sqrt(np.mean(np.square(b, dtype=np.float64))))


def size(variables: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def convolutions(network: nn.Module, variables: Any, image: np.ndarray) -> int:
    with traced_for("tpu"):  # where all convolutions are called that
        return str(jax.make_jaxpr(network.apply)(variables, image)).count("conv_general_dilated[")


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_networks_equal_the_trained_ones_and_are_smaller(name: str) -> None:
    chapter, network = NETWORKS[name]
    variables, image = trained(network)
    fused_network, fused = network.clone(fused=True), chapter.fuse(variables)

    fresh = jax.eval_shape(lambda: fused_network.init(jax.random.key(0), image, False))
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), fused)
    assert described == {"params": jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), fresh["params"])}

    before, after = jax.jit(network.apply)(variables, image), jax.jit(fused_network.apply)(fused, image)
    assert np.ptp(before, axis=0).max() > 1e-2
    assert distance(after, before) < 1e-4
    assert size(fused["params"]) < size(variables["params"])
    assert convolutions(fused_network, fused, image) < convolutions(network, variables, image)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_norm_and_no_second_branch_is_left(name: str) -> None:
    chapter, network = NETWORKS[name]
    fused = chapter.fuse(trained(network)[0])
    words = {
        word for path, _ in jax.tree_util.tree_leaves_with_path(fused) for key in path for word in key.key.split(".")
    }
    assert not words & {
        "bn",
        "norm",
        "rbr_skip",
        "rbr_conv",
        "rbr_scale",
        "small_conv",
        "conv1",
        "scale",
        "mean",
        "var",
    }
    known = {"params", "kernel", "bias", *chapter.ORDER.split()}
    assert all(word in known or word.isdigit() for word in words)


def test_fusing_leaves_the_trained_variables_as_they_are() -> None:
    chapter, network = NETWORKS["fastvit with attention"]
    variables, _ = trained(network)
    copy = jax.tree.map(np.copy, variables)
    chapter.fuse(variables)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, copy))


def convolved(conv: fusing.Filter, x: np.ndarray, stride: int = 1, groups: int = 1) -> jax.Array:
    """What a filter gives, through the layer that will hold it."""
    module = Conv(conv[0].shape[-1], len(conv[0]), stride, groups=groups, bias=True)
    return jax.jit(module.apply)({"params": fusing.layer(conv)}, x)


class Sequence(nn.Module):
    """A convolution and a norm, one operation after the other."""

    kernel: int
    stride: int = 1
    groups: int = 1
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(8, self.kernel, self.stride, groups=self.groups, bias=self.bias, name="conv")(x)
        return BatchNorm(name="bn")(x, train)


def folded(variables: Any) -> fusing.Filter:
    params, stats = variables["params"], variables["batch_stats"]
    return fusing.loaded(params["conv"], {**params["bn"], **stats["bn"]})


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "groups", "stride"), [(1, 1, 1), (3, 1, 2), (3, 4, 1), (7, 8, 2)])
def test_a_norm_folds_into_its_convolution(kernel: int, groups: int, stride: int, bias: bool) -> None:
    sequence = Sequence(kernel, stride, groups, bias)
    variables, x = trained(sequence, (2, 9, 7, 8))
    expected = jax.jit(lambda variables: sequence.apply(variables, x, False))(variables)
    assert distance(convolved(folded(variables), x, stride, groups), expected) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_branches_with_smaller_kernels_add_to_the_largest(stride: int) -> None:
    branches, shape = [Sequence(kernel, stride, 2) for kernel in (1, 7, 3)], (2, 9, 7, 8)
    all_variables = [trained(branch, shape, seed)[0] for seed, branch in enumerate(branches)]
    x = RANDOM.standard_normal(shape).astype(np.float32)
    expected = sum(branch.apply(variables, x, False) for branch, variables in zip(branches, all_variables, strict=True))
    single = fusing.summed(*map(folded, all_variables))
    assert single[0].shape == (7, 7, 4, 8)
    assert distance(convolved(single, x, stride, 2), np.asarray(expected)) < 1e-5


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_an_identity_and_a_lone_norm_are_filters(groups: int) -> None:
    x = RANDOM.standard_normal((2, 5, 4, 8)).astype(np.float32)
    identity = fusing.identity(8 // groups, 8)
    assert np.array_equal(convolved(identity, x, groups=groups), x)
    assert np.array_equal(convolved((fusing.padded(identity[0], 5), identity[1]), x, groups=groups), x)
    norm = BatchNorm()
    variables = randomised(norm.init(jax.random.key(0), x, False))
    lone = fusing.normed(identity, variables["params"] | variables["batch_stats"])
    assert distance(convolved(lone, x, groups=groups), np.asarray(norm.apply(variables, x, False))) < 1e-5


def test_a_factor_multiplies_outputs() -> None:
    x, factor = RANDOM.standard_normal((2, 5, 4, 8)), RANDOM.standard_normal((6, 1, 1))
    conv = RANDOM.standard_normal((3, 3, 8, 6)), RANDOM.standard_normal(6)
    with jax.enable_x64(True):
        expected = convolved(conv, x) * factor[:, 0, 0]
        assert distance(convolved(fusing.scaled(conv, factor), x), expected) < 1e-12


def test_a_norm_folds_into_the_linear_behind_it() -> None:
    x = RANDOM.standard_normal((2, 5, 8)).astype(np.float32)
    norm, linear = BatchNorm(), Linear(6, bias=False)
    first = randomised(norm.init(jax.random.key(0), x, False))
    second = randomised(linear.init(jax.random.key(0), x))
    expected = linear.apply(second, norm.apply(first, x, False))
    both = fusing.norm_before(first["params"] | first["batch_stats"], fusing.loaded(second["params"]))
    result = Linear(6).apply({"params": fusing.layer(both)}, x)
    assert distance(result, np.asarray(expected)) < 1e-5


def test_rewriting_gives_float32_of_any_type() -> None:
    tree = {"a": {"kernel": jnp.ones((1, 1, 2, 2), jnp.bfloat16)}}
    stats = {"a": {"mean": jnp.zeros(2)}}
    seen = []
    out = fusing.rewritten({"params": tree, "batch_stats": stats}, lambda node: seen.append(set(node)) or node)
    assert seen == [{"a"}, {"kernel", "mean"}]
    assert out["params"]["a"]["kernel"].dtype == np.float32
