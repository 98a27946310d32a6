"""Gradients that are written out by hand are those of the plain formulas."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cion_jax.models.layers import Conv, Linear, relu
from cion_jax.models.norms import IBN, BatchNorm, InstanceNorm, LayerNorm, _standardised
from cion_jax.models.ops import _xla, convolve
from cion_jax.models.resnet import _pool, _pool_rows_and_columns

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
    "instance norm": (InstanceNorm(), _instance),
    "batch norm": (BatchNorm(), _batch),
    "instance and batch norm": (IBN(), _mixed),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_formula(name: str) -> None:
    layer, formula = CASES[name]
    takes_train = () if isinstance(layer, Linear | Conv | LayerNorm | InstanceNorm) else (True,)
    with jax.enable_x64():
        x, key = jnp.asarray(X), jax.random.key(1)
        variables = layer.init(key, x, *takes_train)  # type: ignore[attr-defined]
        params = jax.tree.map(lambda p: p + jax.random.normal(key, p.shape, x.dtype), variables["params"])

        def ours(params: dict, x: Array) -> Array:
            given = variables | {"params": params}
            return layer.apply(given, x, *takes_train, mutable=["batch_stats"])[0]  # type: ignore[attr-defined]

        weights = jax.random.normal(key, formula(params, x).shape, x.dtype)
        found, wanted = (
            jax.grad(lambda *inputs, f=f: (weights * f(*inputs)).sum(), argnums=(0, 1))(params, x)
            for f in (ours, formula)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, wanted)


@pytest.mark.parametrize(("axes", "deviations"), [((0, 1, 2), 3), ((1, 2), 100), ((3,), 100)])
def test_norms_bear_a_mean_of_many_deviations(axes: tuple[int, ...], deviations: int) -> None:
    x = (deviations + X).astype(np.float32)
    y, mean, variance = _standardised(x, jnp.ones(8), jnp.zeros(8), axes, 1e-5)
    wanted = [moment(axes, np.float64, keepdims=True) for moment in (x.mean, x.var)]
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-6)
    np.testing.assert_allclose(variance, wanted[1], rtol=1e-5)
    np.testing.assert_allclose(y, (x - wanted[0]) / np.sqrt(wanted[1] + 1e-5), atol=1e-4)


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_pooling_by_rows_and_columns_learns_as_pooling_does(size: tuple[int, int]) -> None:
    # as after a ReLU, and with equal values, of which XLA's own picks one
    x = jnp.asarray(np.random.default_rng(2).integers(0, 4, (2, *size, 3)).astype(np.float32))
    (pooled, back), (wanted, back_wanted) = (jax.vjp(pool, x) for pool in (_pool_rows_and_columns, _pool))
    np.testing.assert_array_equal(pooled, wanted)
    slope = jnp.asarray(np.random.default_rng(3).standard_normal(pooled.shape, np.float32))
    np.testing.assert_allclose(back(slope)[0], back_wanted(slope)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("size", "kernel", "stride", "edge"), [
    ((6, 5), 3, 1, 1), ((6, 5), 3, 2, 1), ((9, 8), 7, 2, 3), ((8, 8), 4, 4, 0), ((9, 11), 5, 3, 2), ((7, 4), 1, 2, 1),
])  # fmt: skip
def test_a_convolution_learns_as_xlas_own_does(size: tuple[int, int], kernel: int, stride: int, edge: int) -> None:
    random = np.random.default_rng(4)
    with jax.enable_x64():
        x, taps = (jnp.asarray(random.standard_normal(s)) for s in ((2, *size, 3), (kernel, kernel, 3, 4)))
        (y, back), (wanted, back_wanted) = (
            jax.vjp(lambda x, taps, f=f: f(x, taps, stride, edge, 1), x, taps) for f in (convolve, _xla)
        )
        np.testing.assert_array_equal(y, wanted)
        slope = jnp.asarray(random.standard_normal(y.shape))
        for found, own in zip(back(slope), back_wanted(slope), strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-9, atol=1e-11)


def test_copies_for_kernels_gradients_do_not_wait_for_them_since_the_forward_pass() -> None:
    x = jnp.zeros((4, 32, 32, 16))

    def held(depth: int) -> int:
        def loss(kernels: list[Array]) -> Array:
            y = x
            for kernel in kernels:
                y = relu(convolve(y, kernel, 1, 1, 1))
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
