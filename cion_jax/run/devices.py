"""What the devices could do at best, and how much of it a training makes use of."""

import re

#: A pattern for the whole of JAX's `device_kind`, and the peak of dense 16-bit matrix products in one device (FLOP/s),
#: from the makers' data sheets. A slice of a GPU (MIG) has a name of its own, so that it is not taken for a whole one.
#: On TPU v2 and v3 a device is one of a chip's two cores. V100 and T4 know float16 only: bfloat16 looks as poor there
#: as it is.
PEAKS = (
    (r"Tesla V100-SXM[23]-\d+GB(-LS)?", 125e12),
    (r"Tesla V100-PCIE-\d+GB", 112e12),
    (r"Tesla T4", 65e12),
    (r"(NVIDIA )?A100(-SXM4-\d+GB|-SXM-\d+GB|-PCIE-\d+GB| 80GB PCIe)", 312e12),
    (r"NVIDIA A10G", 70e12),
    (r"NVIDIA L4", 121e12),
    (r"NVIDIA L40S", 362e12),
    (r"NVIDIA H100 80GB HBM3", 989e12),
    (r"NVIDIA H100 PCIe", 756e12),
    (r"NVIDIA H200", 989e12),
    (r"NVIDIA B200", 2250e12),
    (r"TPU v2", 23e12),
    (r"TPU v3", 61.5e12),
    (r"TPU v4", 275e12),
    (r"TPU v5( lite|e)", 197e12),
    (r"TPU v5p?", 459e12),
    (r"TPU v6( lite|e)", 918e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of one device of a kind, as `jax.devices()[0].device_kind` names it; None where it is not known."""
    return next((peak for pattern, peak in PEAKS if re.fullmatch(pattern, device_kind)), None)


def utilization(flops_per_second: float, device_kind: str, devices: int) -> float | None:
    """Model FLOPs utilization (MFU): the share of all devices' peak; None where the peak is not known.

    `flops_per_second` is what the model needs by its formulas, over all devices, without what is computed twice.
    """
    peak = peak_flops(device_kind)
    return None if peak is None else flops_per_second / (peak * devices)
