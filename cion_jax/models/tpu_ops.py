"""Forms of what `ops` offers for TPUs: XLA's own, but products over maps are convolutions.

XLA lays maps out as the convolutions around them want it. To go over to a product of matrices, and back, would be
copies, and what stands between could not be fused.
"""

from jax import Array

from cion_jax.models import xla_ops
from cion_jax.models.xla_ops import from_heads, max_pool, to_heads

__all__ = ["convolve", "from_heads", "max_pool", "product", "to_heads"]

convolve = xla_ops.convolution


def product(x: Array, kernel: Array) -> Array:
    is_map = x.ndim == 4
    return xla_ops.convolution(x, kernel[None, None], 1, 0, 1) if is_map else xla_ops.product(x, kernel)
