"""Gradients that are written out by hand are those of the plain formulas."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cion_jax.models import cpu_ops, tpu_ops, xla_ops
from cion_jax.models.layers import Conv, Linear, gelu, relu
from cion_jax.models.norms import IBN, BatchNorm, LayerNorm, PooledNorm
from compiling import USUAL

X = np.random.default_rng(0).standard_normal((4, 6, 5, 8))


def _plainly_standardised(x: Array, scale: Array, bias: Array, axes: tuple[int, ...]) -> Array:
    mean = x.mean(axes, keepdims=True)
    variance = jnp.square(x - mean).mean(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias


def _batch(params: dict, x: Array) -> Array:
    return _plainly_standardised(x, params["scale"], params["bias"], (0, 1, 2))


def _instance(params: dict, x: Array) -> Array:
    return _plainly_standardised(x, params["scale"], params["bias"], (1, 2))


def _layer(params: dict, x: Array) -> Array:
    return _plainly_standardised(x, params["scale"], params["bias"], (3,))


def _mixed(params: dict, x: Array) -> Array:
    return jnp.concatenate([_instance(params["IN"], x[..., :4]), _batch(params["BN"], x[..., 4:])], axis=-1)


CASES: dict[str, tuple[object, Callable[[dict, Array], Array]]] = {
    "linear": (Linear(3), lambda params, x: x @ params["kernel"] + params["bias"]),
    "1x1 convolution": (Conv(3, stride=2), lambda params, x: x[:, ::2, ::2] @ params["kernel"][0, 0]),
    "layer norm": (LayerNorm(1e-5), _layer),
    "batch norm": (BatchNorm(), _batch),
    "instance and batch norm": (IBN(), _mixed),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_formula(name: str) -> None:
    layer, formula = CASES[name]
    takes_train = () if isinstance(layer, Linear | Conv | LayerNorm) else (True,)
    with jax.enable_x64():
        x, key = jnp.asarray(X), jax.random.key(1)
        variables = layer.init(key, x, *takes_train)  # type: ignore[attr-defined]
        params = jax.tree.map(lambda p: p + jax.random.normal(key, p.shape, x.dtype), variables["params"])

        def ours(params: dict, x: Array) -> Array:
            given = variables | {"params": params}
            return layer.apply(given, x, *takes_train, mutable=["batch_stats"])[0]  # type: ignore[attr-defined]

        weights = jax.random.normal(key, formula(params, x).shape, x.dtype)
        result, wanted = (
            jax.grad(lambda *inputs, f=f: (weights * f(*inputs)).sum(), argnums=(0, 1))(params, x)
            for f in (ours, formula)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), result, wanted)


@pytest.mark.parametrize(
    ("name", "axes", "deviations"),
    [("batch norm", (0, 1, 2), 3), ("layer norm", 3, 100)],
)
def test_norms_bear_a_mean_of_many_standard_deviations(name: str, axes: tuple[int, ...] | int, deviations: int) -> None:
    x = (deviations + X).astype(np.float32)
    takes_train = (True,) if name == "batch norm" else ()
    y = CASES[name][0].init_with_output(jax.random.key(0), x, *takes_train)[0]  # type: ignore[attr-defined]
    mean, variance = (moment(axes, np.float64, keepdims=True) for moment in (x.mean, x.var))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)


def test_a_mixed_norm_bears_a_mean_of_many_standard_deviations() -> None:
    x = (X + 100).astype(np.float32)
    y, variables = IBN().init_with_output(jax.random.key(0), x, True)
    halves = (x[..., :4], (1, 2)), (x[..., 4:], (0, 1, 2))
    wanted = [
        (half - half.mean(axes, np.float64, keepdims=True)) / np.sqrt(half.var(axes, np.float64, keepdims=True) + 1e-5)
        for half, axes in halves
    ]
    np.testing.assert_allclose(y, np.concatenate(wanted, axis=-1), atol=1e-4)
    moved = IBN().apply(variables, x, True, mutable=["batch_stats"])[1]["batch_stats"]["BN"]
    values = x[..., 4:].astype(np.float64).reshape(-1, 4)
    np.testing.assert_allclose(moved["mean"], 0.1 * values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-6)


def test_running_statistics_bear_a_mean_of_some_standard_deviations() -> None:
    x = (3 + X).astype(np.float32)
    variables = BatchNorm().init(jax.random.key(0), x, True)
    moved = BatchNorm().apply(variables, x, True, mutable=["batch_stats"])[1]["batch_stats"]
    values = x.astype(np.float64).reshape(-1, 8)
    np.testing.assert_allclose(moved["mean"], 0.1 * values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_pooling_by_rows_and_columns_learns_as_pooling_does(size: tuple[int, int]) -> None:
    # as after a ReLU, and with equal values, of which XLA's own picks one
    x = jnp.asarray(np.random.default_rng(2).integers(0, 4, (2, *size, 3)).astype(np.float32))
    (pooled, back), (wanted, back_wanted) = (jax.vjp(pool, x) for pool in (cpu_ops.max_pool, xla_ops.max_pool))
    np.testing.assert_array_equal(pooled, wanted)
    cotangent = jnp.asarray(np.random.default_rng(3).standard_normal(pooled.shape, np.float32))
    np.testing.assert_allclose(back(cotangent)[0], back_wanted(cotangent)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "kernel", "stride", "edge"), [
    ((6, 5), 3, 1, 1), ((6, 5), 3, 2, 1), ((9, 8), 7, 2, 3), ((8, 8), 4, 4, 0), ((9, 11), 5, 3, 2), ((7, 4), 1, 2, 1),
])  # fmt: skip
def test_a_convolution_learns_as_xlas_own_does(size: tuple[int, int], kernel: int, stride: int, edge: int) -> None:
    random = np.random.default_rng(4)
    with jax.enable_x64():
        x, taps = (jnp.asarray(random.standard_normal(s)) for s in ((2, *size, 3), (kernel, kernel, 3, 4)))
        (y, back), (wanted, back_wanted) = (
            jax.vjp(lambda x, taps, f=f: f(x, taps, stride, edge, 1), x, taps)
            for f in (cpu_ops.convolve, xla_ops.convolve)
        )
        np.testing.assert_array_equal(y, wanted)
        cotangent = jnp.asarray(random.standard_normal(y.shape))
        for result, own in zip(back(cotangent), back_wanted(cotangent), strict=True):
            np.testing.assert_allclose(result, own, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("size", "kernel", "stride", "edge"), [
    ((6, 5), 3, 1, 1), ((6, 5), 3, 2, 1), ((9, 8), 7, 2, 3), ((8, 9), 5, 2, 0), ((7, 4), 1, 2, 0), ((2, 3), 7, 1, 3),
])  # fmt: skip
def test_a_depthwise_convolution_learns_as_xlas_own_does(
    size: tuple[int, int], kernel: int, stride: int, edge: int
) -> None:
    random = np.random.default_rng(5)
    with jax.enable_x64():
        x, taps = (jnp.asarray(random.standard_normal(s)) for s in ((2, *size, 3), (kernel, kernel, 1, 3)))
        (y, back), (wanted, back_wanted) = (
            jax.vjp(lambda x, taps, f=f: f(x, taps, stride, edge, 3), x, taps)
            for f in (cpu_ops.convolve, xla_ops.convolve)
        )
        np.testing.assert_allclose(y, wanted, rtol=1e-9, atol=1e-11)
        cotangent = jnp.asarray(random.standard_normal(y.shape))
        for gradient, own in zip(back(cotangent), back_wanted(cotangent), strict=True):
            np.testing.assert_allclose(gradient, own, rtol=1e-9, atol=1e-11)


def test_copies_for_kernels_gradients_do_not_wait_for_them_since_the_forward_pass() -> None:
    x = jnp.zeros((4, 32, 32, 16))

    def held(depth: int) -> int:
        def loss(kernels: list[Array]) -> Array:
            y = x
            for kernel in kernels:
                y = relu(cpu_ops.convolve(y, kernel, 1, 1, 1))
            return y.sum()

        return (
            jax.jit(jax.grad(loss))
            .lower([jnp.zeros((3, 3, 16, 16))] * depth)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    assert (held(12) - held(6)) / 6 < 1.5 * x.nbytes  # a layer's output and little else; three copies would be 10 times


def test_relu_learns_where_it_lets_through() -> None:
    x = jnp.asarray([-1.0, 0.0, 2.0, np.nan])
    y, back = jax.vjp(relu, x)
    np.testing.assert_array_equal(y, [0, 0, 2, np.nan])
    np.testing.assert_array_equal(back(jnp.ones(4))[0], jax.vjp(jax.nn.relu, x)[1](jnp.ones(4))[0])


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("forms", [cpu_ops, xla_ops], ids=["cpu", "xla"])
def test_the_pool_may_go_before_norm_and_relu(forms: Any, train: bool) -> None:
    """Also where a scale is negative, and where a window has nothing above 0, or its largest value twice."""

    class Published(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            return forms.max_pool(relu(BatchNorm(name="bn1")(Conv(8, 1, name="conv1")(x), train)))

    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            norm = PooledNorm(8, name="bn1")
            return relu(norm(Conv(8, 1, name="conv1")(x, norm.signs()), train, forms.max_pool))

    random = np.random.default_rng(0)
    with jax.enable_x64():
        x = jnp.asarray(random.integers(-4, 4, (4, 17, 9, 8)), jnp.float64)
        kernel = jnp.asarray(np.diag(random.integers(1, 4, 8))[None, None], jnp.float64)
        scale = jnp.asarray([1.5, -1.0, 2.0, -0.5, 0.7, 1.0, -2.0, 3.0])
        bias = jnp.asarray(random.standard_normal(8))
        params = {"conv1": {"kernel": kernel}, "bn1": {"scale": scale, "bias": bias}}
        running = {"bn1": {"mean": jnp.asarray(random.standard_normal(8)), "var": jnp.asarray(random.random(8) + 0.5)}}

        def run(model: nn.Module) -> tuple[Array, Any, Any]:
            def apply(params: Any, x: Array) -> Any:
                return model.apply({"params": params, "batch_stats": running}, x, mutable="batch_stats")

            y, back, state = jax.vjp(apply, params, x, has_aux=True)
            cotangent = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape))
            return y, state, back(cotangent)

        published, ours = run(Published()), run(Ours())
        assert 0.03 < (published[0] == 0).mean() < 0.9
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), ours, published)


def test_products_with_a_stride_on_tpus() -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, 7, 6, 8)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((1, 1, 8, 5)), jnp.float32)
    forms = [partial(ops.convolve, stride=2, edge=0, groups=1) for ops in (tpu_ops, xla_ops)]
    (ours, back), (wanted, back_wanted) = (jax.vjp(form, x, kernel) for form in forms)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5)
    cotangent = jnp.asarray(random.standard_normal(ours.shape), jnp.float32)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), back(cotangent), back_wanted(cotangent))


@pytest.mark.parametrize("mean", [0, 10, 100])
def test_one_pass_over_a_map_in_bfloat16_loses_less_than_rounding(mean: int) -> None:
    """With the rounding of what comes out and little else: half a unit in the last place, 2^-8 at the most."""
    x = jnp.asarray(mean + np.random.default_rng(0).standard_normal((2, 64, 32, 8)), jnp.bfloat16)
    y, _ = IBN().init_with_output(jax.random.key(0), x, True)
    exact = np.asarray(x, np.float64)[..., :4]
    exact = (exact - exact.mean((1, 2), keepdims=True)) / np.sqrt(exact.var((1, 2), keepdims=True) + 1e-5)
    assert (np.abs(np.asarray(y, np.float64)[..., :4] - exact) <= 1.5 * 2**-8 * np.abs(exact) + 1e-4).all()


def test_gelu_in_bfloat16_is_exact_but_for_rounding() -> None:
    """For all numbers that bfloat16 has. JAX's own, which rounds the error function too, is eighty times as far off."""
    x = np.arange(1 << 16, dtype=np.uint16).view(jnp.bfloat16)
    x = x[np.isfinite(x.astype(np.float32))]
    y, slope = jax.jit(jax.vmap(jax.value_and_grad(gelu)), compiler_options=USUAL)(x)
    with jax.enable_x64():
        wide = jnp.asarray(x, np.float64)
        phi = jax.scipy.stats.norm.cdf(wide)
        exact = np.asarray([wide * phi, phi + wide * jax.scipy.stats.norm.pdf(wide)])
    half_a_digit = 2.0 ** (np.frexp(exact)[1] - 9)
    away = np.abs(np.asarray([y, slope], np.float64) - exact) - half_a_digit
    assert away[0].max() < 4e-5
    assert away[1].max() < 1e-4
