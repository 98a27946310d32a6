"""What several families share. Images and maps are NHWC; names and defaults are PyTorch's, so that weights move freely.

The compute type is that of the input: a layer casts its parameters to it, and norms take their statistics in float32
or better. So the same network runs in bfloat16, float32 or float64 without being told.

The number of images may be unknown while a program is traced, as for export. What is cut out of an array is then cut by
`lax.slice` and the like: x[:, 0] would become a gather.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from cion_jax.models.ops import attend, convolve, from_heads, product, to_heads

Initializer = Callable[..., Array]


def _row(draw: Initializer, key: Array, shape: Sequence[int], dtype: DTypeLike, *bounds: float) -> Array:
    """Random numbers, drawn as one row: the same as in their shape, but XLA compiles them in a third of the time, which
    for fresh variables of a network is most of it."""
    return draw(key, (math.prod(shape),), dtype, *bounds).reshape(shape)


def torch_default(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """What PyTorch gives a kernel when nobody says otherwise: uniform within 1 / sqrt(fan-in)."""
    fan_in = math.prod(shape[:-1])
    return _row(jax.random.uniform, key, shape, dtype, -1) * jnp.sqrt(3 * jnp.array(1 / 3 / fan_in, dtype))


def normal_02(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Of linears and tables: PyTorch cuts this normal at +-2, a hundred standard deviations away."""
    return _row(jax.random.normal, key, shape, dtype) * jnp.array(0.02, dtype)


def kaiming_out(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """A normal whose variance is 2 / fan-out."""
    fan_out = math.prod(shape) // shape[-2]
    return _row(jax.random.normal, key, shape, dtype) * jnp.sqrt(jnp.array(2 / fan_out, dtype))


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for the bias of a layer with so many inputs per output."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
    """y = x W + b over the last axis."""

    features: int
    bias: bool = True
    kernel_init: Initializer = normal_02
    bias_init: Initializer | None = nn.initializers.zeros
    """None is PyTorch's default, which depends on the fan-in."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = product(x, kernel.astype(x.dtype))
        if self.bias:
            y += self.param("bias", self.bias_init or uniform_bias(x.shape[-1]), (self.features,)).astype(x.dtype)
        return y


class Conv(nn.Module):
    """A square convolution, zero-padded by half its kernel unless told otherwise."""

    features: int
    kernel: int = 1
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    bias: bool = False
    kernel_init: Initializer = torch_default
    bias_init: Initializer | None = None
    """None is PyTorch's default, which depends on the fan-in."""

    @nn.compact
    def __call__(self, x: Array, signs: Array | None = None) -> Array:
        """Convolve x; with signs, 1 or -1 of each channel that comes out, what is multiplied by them."""
        inputs = x.shape[-1] // self.groups
        size = self.kernel
        kernel = self.param("kernel", self.kernel_init, (size, size, inputs, self.features)).astype(x.dtype)
        kernel = kernel if signs is None else kernel * signs.astype(x.dtype)
        edge = size // 2 if self.padding is None else self.padding
        y = convolve(x, kernel, self.stride, edge, self.groups)
        if self.bias:
            bias_init = self.bias_init or uniform_bias(size * size * inputs)
            y += self.param("bias", bias_init, (self.features,)).astype(x.dtype)
        return y


class SqueezeExcite(nn.Module):
    """Channels scaled by gates that the mean over the map decides (Hu et al. 2018)."""

    hidden: int
    gate: Callable[[Array], Array] = nn.hard_sigmoid
    names: tuple[str, str] = ("conv_reduce", "conv_expand")

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = relu(Conv(self.hidden, bias=True, name=self.names[0])(x.mean((1, 2), keepdims=True)))
        return x * self.gate(Conv(x.shape[-1], bias=True, name=self.names[1])(y))


@jax.custom_vjp
def relu(x: Array) -> Array:
    """max(x, 0). Its backward pass looks at the result, which the next layer keeps anyway; JAX's own keeps a mask."""
    return jnp.maximum(x, 0)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = jnp.maximum(x, 0)
    return y, y


def _relu_backward(y: Array, cotangent: Array) -> tuple[Array]:
    return (jnp.where(y > 0, cotangent, 0),)


relu.defvjp(_relu_forward, _relu_backward)


def gelu(x: Array) -> Array:
    """The exact GELU, x Phi(x); in bfloat16 by a form that costs a tanh, and is as exact as rounding lets it be."""
    return _gelu_bfloat16(x) if x.dtype == jnp.bfloat16 else jax.nn.gelu(x, approximate=False)


#: Phi(x) is (1 + tanh u) / 2 for u = x (a + b x^2 + c x^4): x Phi(x) to 4e-5 and its derivative to 1e-4, where bfloat16
#: rounds 1 to 4e-3. An error function takes an accelerator longer than the products around it.
_GELU = (0.79744344, 0.036993806, -0.00034520720)


def _gelu_parts(x: Array) -> tuple[Array, Array, Array]:
    """x, Phi(x) and Phi'(x), all in float32."""
    x = x.astype(jnp.float32)
    z = jnp.clip(x, -6, 6)  # where Phi is 0 and 1, to the last bit
    a, b, c = _GELU
    phi = 0.5 + 0.5 * jnp.tanh(z * (a + z**2 * (b + z**2 * c)))
    slope = 2 * (a + z**2 * (3 * b + z**2 * 5 * c)) * phi * (1 - phi)
    return x, phi, slope


@jax.custom_vjp
def _gelu_bfloat16(x: Array) -> Array:
    x_float32, phi, _ = _gelu_parts(x)
    return (x_float32 * phi).astype(x.dtype)


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return _gelu_bfloat16(x), x


def _gelu_backward(x: Array, cotangent: Array) -> tuple[Array]:
    x_float32, phi, slope = _gelu_parts(x)
    return ((cotangent * (phi + x_float32 * slope)).astype(x.dtype),)


_gelu_bfloat16.defvjp(_gelu_forward, _gelu_backward)


class Mlp(nn.Module):
    """Two linears with a GELU between."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return Linear(x.shape[-1], name="fc2")(gelu(Linear(self.hidden, name="fc1")(x)))


class Heads(nn.Module):
    """A linear to queries, keys and values, three arrays (..., groups, tokens, width), of tokens (..., tokens, C).

    A group is a head, or several side by side (`ops.to_heads`).
    """

    heads: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        channels = x.shape[-1]
        kernel = self.param("kernel", normal_02, (channels, 3 * channels))
        q, k, v = to_heads(x, kernel.astype(x.dtype), self.heads)
        if not self.bias:
            return q, k, v
        bias = self.param("bias", nn.initializers.zeros, (3 * channels,)).astype(x.dtype)
        bias_3xGx1xD = bias.reshape(3, q.shape[-3], 1, -1)
        return q + bias_3xGx1xD[0], k + bias_3xGx1xD[1], v + bias_3xGx1xD[2]


class Joined(nn.Module):
    """A linear over what all groups (..., groups, tokens, width) have found: (..., tokens, C)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-3] * x.shape[-1]
        kernel = self.param("kernel", normal_02, (channels, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        return from_heads(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over (..., tokens, channels), perhaps with a bias on its scores."""

    heads: int
    qkv_bias: bool = True

    @nn.compact
    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        q, k, v = Heads(self.heads, self.qkv_bias, name="qkv")(x)
        return Joined(name="proj")(attend(q, k, v, self.heads, bias))


def drop_path(module: nn.Module, x: Array, rate: float, train: bool) -> Array:
    """Leave out a residual branch for a random share of the images, and scale it up for the others.

    Only where there is an rng for it: a teacher, which is given none, keeps every branch.
    """
    if not train or not rate or not module.has_rng("drop_path"):
        return x
    kept = jax.random.bernoulli(module.make_rng("drop_path"), 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(kept, x / (1 - rate), 0)


def drop_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates that rise linearly from 0 over all blocks to `last`, by stage and block."""
    rates = np.linspace(0.0, last, sum(depths)).tolist()
    starts = np.cumsum([0, *depths])
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=False)]


def maybe_remat(block: type[nn.Module], remat: bool) -> Any:
    """A block whose activations are computed again in the backward pass, if asked; called as block(...)(x, train)."""
    return nn.remat(block, static_argnums=(2,)) if remat else block


def keep(module: nn.Module, name: str, x: Array) -> Array:
    """Offer an intermediate to callers who ask for features by name."""
    module.sow("features", name, x, init_fn=lambda: x, reduce_fn=lambda _, new: new)
    return x


def resize_positions(table: Array, height: int, width: int, *, always: bool = False) -> Array:
    """A (1, H, W, C) table of positions at another size, as PyTorch's bicubic resampling by a scale factor gives it.

    With A = -0.75, no antialiasing and indices clamped to the edge; the scale is (new + 0.1) / old, the 0.1 being part
    of the published models. So resampling changes even a table that keeps its size; `always` asks for that too.
    """
    if table.shape[1:3] == (height, width) and not always:
        return table
    rows = _bicubic(table.shape[1], height).astype(table.dtype)
    columns = _bicubic(table.shape[2], width).astype(table.dtype)
    resampled = jnp.einsum("oh,pw,bhwc->bopc", rows, columns, table)
    if table.shape[1:3] == (height, width):  # PyTorch's gradient takes this for a copy
        return table + jax.lax.stop_gradient(resampled - table)
    return resampled


def _bicubic(old: int, new: int) -> np.ndarray:
    """The (new, old) matrix of one axis."""
    place = (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5
    first = np.floor(place).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        distance = np.abs(place - (first + tap))
        near = 1.25 * distance**3 - 2.25 * distance**2 + 1
        far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), np.where(distance <= 1, near, far))
    return matrix
