"""Norms. Statistics are taken in float32 or better, and what comes out has the type of what goes in.

Over the batch BatchNorm's variance is the mean of squares less the square of the mean, as in Flax: for differences from
the mean XLA would write an array of them on CPU. Its relative error grows with mean^2 / variance, so within a map or a
token, where that may be anything, the differences are squared; but not within a map in bfloat16, which has lost more to
rounding: that would be another pass over it. The gradient is written out: it needs the input as it came and two sums,
where JAX's own rule keeps the input several times, in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

BATCH_EPSILON = 1e-5


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _standardised(
    x: Array, scale: Array, bias: Array, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Array, Array]:
    """x with mean `bias` and standard deviation `scale` over some axes; and the mean and variance that it had there,
    through which no gradient flows."""
    return _forward(x, scale, bias, axes, epsilon)[0]


def _forward(x: Array, scale: Array, bias: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Any, Any]:
    wide = at_least_float32(x)
    if 0 in axes:
        mean, variance = _by_squares(wide, axes)
    else:
        mean, variance = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    y = _normalise(wide, mean, variance, epsilon, scale, bias).astype(x.dtype)
    return (y, mean, variance), (x, scale, mean, variance)


def _backward(
    axes: tuple[int, ...], epsilon: float, kept: Any, cotangents: tuple[Array, Any, Any]
) -> tuple[Array, ...]:
    """Of y = u scale + bias with u = (x - mean) r and r = 1 / sqrt(variance + epsilon), for the cotangent g of y:

        d_bias = sum g    d_scale = sum g u                          over all but channels
        d_x = r (h - (sum h + u sum h u) / n)    h = g scale         over the axes, which have n values together

    The scale is constant along axes without the channels; there it waits, h = g, until the sums are taken.
    """
    x, scale, mean, variance = kept
    channels = x.ndim - 1
    positions = tuple(range(channels))
    wide = at_least_float32(x)
    cotangent = at_least_float32(cotangents[0])  # g
    inverse_std = lax.rsqrt(variance + epsilon)  # r
    unit = (wide - mean) * inverse_std  # u
    scaled = cotangent * scale if channels in axes else cotangent  # h
    sum_h = scaled.sum(axes, keepdims=True)
    if 0 in axes:  # as its variance: from sums of h and of h x, for which no array of u need be written
        sum_hu = inverse_std * ((scaled * wide).sum(axes, keepdims=True) - mean * sum_h)
    else:
        sum_hu = (scaled * unit).sum(axes, keepdims=True)
    if channels in axes:
        d_scale = (cotangent * unit).sum(positions)
        d_bias = cotangent.sum(positions)
        factor = inverse_std
    else:
        d_scale = sum_hu.sum(positions)
        d_bias = sum_h.sum(positions)
        factor = inverse_std * scale
    d_x = factor * (scaled - (sum_h + unit * sum_hu) * (mean.size / x.size))
    return d_x.astype(x.dtype), d_scale, d_bias


_standardised.defvjp(_forward, _backward)


def _by_squares(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and variance, in one pass."""
    mean = x.mean(axes, keepdims=True)
    return mean, jnp.maximum(jnp.square(x).mean(axes, keepdims=True) - jnp.square(mean), 0)


def _normalise(x: Array, mean: Array, variance: Array, epsilon: float, scale: Array, bias: Array) -> Array:
    factor = lax.rsqrt(variance + epsilon) * scale
    return (x - mean) * factor + bias


def at_least_float32(x: Array) -> Array:
    """In float32, or in float64 if it is that already."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class LayerNorm(nn.Module):
    """Over the channels of each position."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return _standardised(x, scale, bias, (x.ndim - 1,), self.epsilon)[0]


class BatchNorm(nn.Module):
    """Over images and positions of the global batch; as in PyTorch the running variance is the unbiased one.

    Under jit over a mesh the batch is the global one, whatever devices hold it.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            y = _normalise(at_least_float32(x), mean.value, variance.value, BATCH_EPSILON, scale, bias)
            return y.astype(x.dtype)
        y, batch_mean, batch_variance = _standardised(x, scale, bias, tuple(range(x.ndim - 1)), BATCH_EPSILON)
        if not self.is_initializing():
            _move(mean, variance, batch_mean.reshape(shape), batch_variance.reshape(shape), x.size // x.shape[-1])
        return y


def _move(mean: nn.Variable, variance: nn.Variable, batch_mean: Array, batch_variance: Array, count: int) -> None:
    """Let running statistics follow those of a batch that has so many values in each channel."""
    unbiased = count / max(count - 1, 1)
    mean.value = 0.9 * mean.value + 0.1 * batch_mean
    variance.value = 0.9 * variance.value + 0.1 * batch_variance * unbiased


class _Channels(nn.Module):
    """What a norm keeps of its channels: scale and bias, and running statistics if it has some."""

    count: int
    is_running: bool = False

    def setup(self) -> None:
        self.scale = self.param("scale", nn.initializers.ones, (self.count,))
        self.bias = self.param("bias", nn.initializers.zeros, (self.count,))
        if self.is_running:
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, (self.count,))
            self.variance = self.variable("batch_stats", "var", jnp.ones, (self.count,))


class PooledNorm(_Channels):
    """BatchNorm, and then a maximum over neighbours.

    A norm keeps the order of numbers, or turns it over where its scale is negative. So the maximum can be taken before
    it: the same values, and norm and gradient have fewer numbers to work on. What goes in must be multiplied by
    `signs`, those of the scale, so that it keeps the order; in the layer before that costs nothing.
    """

    is_running: bool = True

    def signs(self) -> Array:
        """1, or -1 where the norm turns the order of numbers over."""
        return jnp.where(self.scale < 0, -1, 1)

    def __call__(self, signed: Array, train: bool, pool: Callable[[Array], Array]) -> Array:
        signs = self.signs()
        scale, pooled = signs * self.scale, pool(signed)
        if not train:
            mean, variance = signs * self.mean.value, self.variance.value
            y = _normalise(at_least_float32(pooled), mean, variance, BATCH_EPSILON, scale, self.bias)
            return y.astype(signed.dtype)
        y, mean, variance = _standardised_with(pooled, signed, scale, self.bias, BATCH_EPSILON)
        if not self.is_initializing():
            _move(self.mean, self.variance, signs * mean, variance, signed.size // self.count)
        return y


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _standardised_with(x: Array, all_x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """x normalised by what another array has in each channel: mean and variance, which come with it."""
    return _forward_with(x, all_x, scale, bias, epsilon)[0]


def _forward_with(x: Array, all_x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Any, Any]:
    mean, variance = (value.reshape(-1) for value in _by_squares(at_least_float32(all_x), (0, 1, 2)))
    y = _normalise(at_least_float32(x), mean, variance, epsilon, scale, bias).astype(x.dtype)
    return (y, mean, variance), (x, all_x, scale, mean, variance)


def _backward_with(epsilon: float, kept: Any, cotangents: tuple[Array, Any, Any]) -> tuple[Array, ...]:
    """As `_backward`, but sums are over x, and the mean and the variance are functions of all_x."""
    x, all_x, scale, mean, variance = kept
    cotangent = at_least_float32(cotangents[0])  # g
    inverse_std = lax.rsqrt(variance + epsilon)  # r
    factor = inverse_std * scale
    sum_g = cotangent.sum((0, 1, 2))
    sum_gu = inverse_std * ((cotangent * x).sum((0, 1, 2)) - mean * sum_g)
    unit = (at_least_float32(all_x) - mean) * inverse_std
    d_all_x = factor * (sum_g + unit * sum_gu) * (-mean.size / all_x.size)
    return (factor * cotangent).astype(x.dtype), d_all_x.astype(x.dtype), sum_gu, sum_g


_standardised_with.defvjp(_forward_with, _backward_with)


class IBN(nn.Module):
    """The first half of the channels through InstanceNorm, the other through BatchNorm (IBN-a, Pan et al. 2018).

    Both are one computation: half of 64 channels would fill a quarter of a TPU's lanes, and to cut and join them would
    be copies.
    """

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        half = x.shape[-1] // 2
        by_image, by_batch = _Channels(half, name="IN"), _Channels(half, is_running=True, name="BN")
        scale = jnp.concatenate([by_image.scale, by_batch.scale])
        bias = jnp.concatenate([by_image.bias, by_batch.bias])
        if not train:
            wide = at_least_float32(x)
            kept = by_batch.mean.value, by_batch.variance.value
            mean, variance = (_halves(own, jnp.tile(all, 2)) for own, all in zip(_of_images(x), kept, strict=True))
            return _normalise(wide, mean, variance, BATCH_EPSILON, scale, bias).astype(x.dtype)
        y, mean, variance = _standardised_by_half(x, scale, bias, BATCH_EPSILON)
        if not self.is_initializing():
            batch_mean, batch_variance = mean[0, 0, 0, half:], variance[0, 0, 0, half:]
            _move(by_batch.mean, by_batch.variance, batch_mean, batch_variance, x.size // x.shape[-1])
        return y


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _standardised_by_half(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """As `_standardised`: the first half of the channels of (N, H, W, C) within each image, the other over all images.
    Mean and variance are (N, 1, 1, C)."""
    return _forward_by_half(x, scale, bias, epsilon)[0]


def _forward_by_half(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Any, Any]:
    wide = at_least_float32(x)
    mean, variance = _of_images(x)
    pooled = _pool_half(mean)
    # over all images: the mean of their own variances, and that of their means' squared distances from the mean of all
    variance = _pool_half(variance + jnp.square(mean - pooled))
    y = _normalise(wide, pooled, variance, epsilon, scale, bias).astype(x.dtype)
    return (y, pooled, variance), (x, scale, pooled, variance)


def _backward_by_half(epsilon: float, kept: Any, cotangents: tuple[Array, Any, Any]) -> tuple[Array, Array, Array]:
    """The formula of `_backward`, with h = g; sums over an image, and for the second half over all images, are means
    here, which need no n."""
    x, scale, mean, variance = kept
    cotangent = at_least_float32(cotangents[0])  # g
    inverse_std = lax.rsqrt(variance + epsilon)  # r
    unit = (at_least_float32(x) - mean) * inverse_std  # u
    mean_g = cotangent.mean((1, 2), keepdims=True)
    mean_gu = (cotangent * unit).mean((1, 2), keepdims=True)
    positions = x.shape[1] * x.shape[2]
    d_scale = mean_gu.sum((0, 1, 2)) * positions
    d_bias = mean_g.sum((0, 1, 2)) * positions
    d_x = inverse_std * scale * (cotangent - _pool_half(mean_g) - unit * _pool_half(mean_gu))
    return d_x.astype(x.dtype), d_scale, d_bias


_standardised_by_half.defvjp(_forward_by_half, _backward_by_half)


def _of_images(x: Array) -> tuple[Array, Array]:
    """Mean and variance of each image and channel, (N, 1, 1, C)."""
    wide = at_least_float32(x)
    if x.dtype == jnp.bfloat16:
        return _by_squares(wide, (1, 2))
    return wide.mean((1, 2), keepdims=True), wide.var((1, 2), keepdims=True)


def _pool_half(of_images: Array) -> Array:
    """Values (N, 1, 1, C) of each image; the second half of the channels has the mean of all images instead."""
    return _halves(of_images, of_images.mean(0, keepdims=True))


def _halves(first: Array, second: Array) -> Array:
    """Values (..., C): the first half of the channels of one array, and the second of the other."""
    channels = first.shape[-1]
    return jnp.where(jnp.arange(channels) < channels // 2, first, second)
