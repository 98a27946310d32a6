"""Norms. Statistics are taken in float32 or better, and what comes out has the type of what goes in.

Over the batch the variance is the mean of squares less the square of the mean, as in Flax: for differences from the
mean XLA would write an array of them on CPU. Its relative error grows with mean^2 / variance, so within a map or a
token, where that may be anything, the differences are squared. The gradient is written out: it needs the input as it
came and two sums, where JAX's own rule keeps the input several times, in float32.
"""

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
    mean = wide.mean(axes, keepdims=True)
    if 0 in axes:
        variance = jnp.maximum(jnp.square(wide).mean(axes, keepdims=True) - jnp.square(mean), 0)
    else:
        variance = wide.var(axes, keepdims=True)
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


class InstanceNorm(nn.Module):
    """Over the positions of each image and channel; it keeps no statistics."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return _standardised(x, scale, bias, (1, 2), BATCH_EPSILON)[0]


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
            count = x.size // x.shape[-1]
            unbiased = count / max(count - 1, 1)
            mean.value = 0.9 * mean.value + 0.1 * batch_mean.reshape(shape)
            variance.value = 0.9 * variance.value + 0.1 * batch_variance.reshape(shape) * unbiased
        return y


class IBN(nn.Module):
    """The first half of the channels through InstanceNorm, the other through BatchNorm (IBN-a, Pan et al. 2018)."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        half = x.shape[-1] // 2
        by_image = InstanceNorm(name="IN")(lax.slice_in_dim(x, 0, half, axis=-1))
        by_batch = BatchNorm(name="BN")(lax.slice_in_dim(x, half, None, axis=-1), train)
        return jnp.concatenate([by_image, by_batch], axis=-1)
