"""What networks compute in: the type of their arrays, and how exactly these are multiplied.

Accelerators multiply arrays of float32 in fewer bits unless they are told otherwise: TPUs round them to bfloat16,
NVIDIA GPUs from Ampere on to TensorFloat-32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.config import Precision

#: JAX's names of how exactly float32 is multiplied. For bfloat16 there is nothing to choose.
_PRODUCTS = {"float32": "highest", "tensorfloat32": "high"}


def dtype_of(precision: Precision) -> np.dtype:
    """The type of images and activations."""
    return jnp.dtype("bfloat16" if precision == "bfloat16" else "float32")


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Inside, products and convolutions are traced as exactly as a precision asks for; a precision of their own stays.

    Gradients that are taken inside are as exact.
    """
    if precision == "bfloat16":
        yield
        return
    with jax.default_matmul_precision(_PRODUCTS[precision]):
        yield
