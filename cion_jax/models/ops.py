"""Products, convolutions and pooling, in the forms of the platform that a program is traced for.

On CPUs many of XLA's own forms are slow, so `cpu_ops` has others for them; TPUs want products over maps in another one
(`tpu_ops`); elsewhere those of `xla_ops` are taken. The choice is made here, once, while the forward pass is traced.
Each form brings its gradient with it: a backward pass, which JAX traces later, has no choice to make.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import jax
from jax import Array

from cion_jax.models import cpu_ops, tpu_ops, xla_ops

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


@contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Inside, programs are traced for a platform: "cpu", "gpu" ("cuda" is as good), "tpu"; outside, for that of JAX's
    default backend.

    `jax.jit` knows nothing of this: a function that is jitted outside and called inside must get the platform as a
    static argument, or two platforms would share one program.
    """
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def _forms() -> ModuleType:
    return {"cpu": cpu_ops, "tpu": tpu_ops}.get(_platform.get() or jax.default_backend(), xla_ops)


def product(x: Array, kernel: Array) -> Array:
    """x W over the last axis: (..., C) and (C, D) make (..., D)."""
    return _forms().product(x, kernel)


def to_heads(x: Array, kernel: Array, heads: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values (..., groups, tokens, width) of tokens (..., tokens, C); the kernel is (C, 3 C).

    A group is a head, or several heads side by side, whichever the platform works best with.
    """
    return _forms().to_heads(x, kernel, heads)


def attend(q: Array, k: Array, v: Array, heads: int, bias: Array | None = None) -> Array:
    """Softmax attention over (..., groups, tokens, width), whose scores may have a bias (..., heads, tokens, tokens).

    The softmax is taken in float32 or better.
    """
    return _forms().attend(q, k, v, heads, bias)


def from_heads(x: Array, kernel: Array) -> Array:
    """What groups (..., groups, tokens, width) make together, (..., tokens, D); the kernel is (groups width, D)."""
    return _forms().from_heads(x, kernel)


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    """A convolution of (N, H, W, C) with a (size, size, C / groups, D) kernel, padded with `edge` zeros."""
    return _forms().convolve(x, kernel, stride, edge, groups)


def max_pool(x: Array) -> Array:
    """The maximum of the 3x3 neighbourhood of every second position: (N, H, W, C) to (N, H / 2, W / 2, C)."""
    return _forms().max_pool(x)
