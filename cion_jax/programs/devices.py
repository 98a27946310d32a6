"""What devices could do at best, and how much of it a training makes use of."""

import re
from typing import NamedTuple

from cion_jax.programs.cost import Product

GB = 10**9


class Sheet(NamedTuple):
    """A device, from its maker's data sheet."""

    flops: float
    """Peak of dense 16-bit matrix products, FLOP/s."""
    bandwidth: float
    """Bytes a second that its memory gives and takes."""
    memory: int
    """Bytes."""
    clock: float = 0.0
    """Of a TPU's cores, cycles a second, which XLA's estimates are in; 0 for GPUs, for which it makes none."""

    def seconds(self, product: Product) -> float:
        """The least time for a product. Of float32 at full precision a TPU makes six of bfloat16; a GPU has slow units
        for it; and faster ones, for TensorFloat32, where nothing is asked for."""
        is_half = product.dtype in ("bf16", "f16")
        times = product.passes if self.clock or is_half else {1: 2, 3: 3, 6: 15}[product.passes]
        return product.flops * times / self.flops


#: A pattern for the whole of JAX's `device_kind`, and its sheet. A slice of a GPU (MIG) has a name of its own, so that
#: it is not taken for a whole one. On TPU v2 and v3 a device is one of a chip's two cores. V100 and T4 know float16
#: only: bfloat16 looks as poor there as it is.
SHEETS = (
    (r"Tesla V100-SXM[23]-\d+GB(-LS)?", Sheet(125e12, 900e9, 32 * GB)),
    (r"Tesla V100-PCIE-\d+GB", Sheet(112e12, 900e9, 32 * GB)),
    (r"Tesla T4", Sheet(65e12, 320e9, 16 * GB)),
    (r"(NVIDIA )?A100(-SXM4-40GB|-SXM-40GB|-PCIE-40GB)", Sheet(312e12, 1555e9, 40 * GB)),
    (r"(NVIDIA )?A100(-SXM4-80GB|-SXM-80GB|-PCIE-80GB| 80GB PCIe)", Sheet(312e12, 2039e9, 80 * GB)),
    (r"NVIDIA A10G", Sheet(70e12, 600e9, 24 * GB)),
    (r"NVIDIA L4", Sheet(121e12, 300e9, 24 * GB)),
    (r"NVIDIA L40S", Sheet(362e12, 864e9, 48 * GB)),
    (r"NVIDIA H100 80GB HBM3", Sheet(989e12, 3350e9, 80 * GB)),
    (r"NVIDIA H100 PCIe", Sheet(756e12, 2000e9, 80 * GB)),
    (r"NVIDIA H200", Sheet(989e12, 4800e9, 141 * GB)),
    (r"NVIDIA B200", Sheet(2250e12, 8000e9, 180 * GB)),
    (r"TPU v2", Sheet(23e12, 350e9, 8 * GB, 0.70e9)),
    (r"TPU v3", Sheet(61.5e12, 450e9, 16 * GB, 0.94e9)),
    (r"TPU v4", Sheet(275e12, 1228e9, 32 * GB, 1.05e9)),
    (r"TPU v5( lite|e)", Sheet(197e12, 819e9, 16 * GB, 1.50e9)),
    (r"TPU v5p?", Sheet(459e12, 2765e9, 95 * GB, 1.75e9)),
    (r"TPU v6( lite|e)", Sheet(918e12, 1640e9, 32 * GB, 1.75e9)),
)


def sheet_of(device_kind: str) -> Sheet | None:
    """The sheet of a kind of device, as `jax.devices()[0].device_kind` names it; None where it is not known."""
    return next((sheet for pattern, sheet in SHEETS if re.fullmatch(pattern, device_kind)), None)


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of one device of a kind in 16-bit products; None where it is not known."""
    sheet = sheet_of(device_kind)
    return None if sheet is None else sheet.flops


def utilization(flops_per_second: float, device_kind: str, devices: int) -> float | None:
    """Model FLOPs utilization (MFU): the share of all devices' peak; None where the peak is not known.

    `flops_per_second` is what the model needs by its formulas, over all devices, without what is computed twice.
    """
    peak = peak_flops(device_kind)
    return None if peak is None else flops_per_second / (peak * devices)
