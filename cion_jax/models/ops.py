"""Products, convolutions and pooling, in the forms of the platform that a program is traced for.

On CPUs many of XLA's own forms are slow, so `cpu_ops` has others for them; elsewhere those of `xla_ops` are taken. The
choice is made here, once, while the forward pass is traced. Each form brings its gradient with it: a backward pass,
which JAX traces later, has no choice to make.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import jax
from jax import Array

from cion_jax.models import cpu_ops, xla_ops

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
    platform = _platform.get() or jax.default_backend()
    return cpu_ops if platform == "cpu" else xla_ops


def product(x: Array, kernel: Array) -> Array:
    """x W over the last axis: (..., C) and (C, D) make (..., D)."""
    return _forms().product(x, kernel)


def convolve(x: Array, kernel: Array, stride: int, edge: int, groups: int) -> Array:
    """A convolution of (N, H, W, C) with a (size, size, C / groups, D) kernel, padded with `edge` zeros."""
    if kernel.shape[0] == 1 and groups == 1 and not edge:
        return product(xla_ops.every(x, stride), kernel[0, 0])
    return _forms().convolve(x, kernel, stride, edge, groups)


def max_pool(x: Array) -> Array:
    """The maximum of the 3x3 neighbourhood of every second position: (N, H, W, C) to (N, H / 2, W / 2, C)."""
    return _forms().max_pool(x)
