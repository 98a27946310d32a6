"""What XLA must be told before JAX starts."""

import os

#: With JAX 0.11.2 on an H100 the compiler aborts on the step of a ResNet, in the code that this leaves out: a check in
#: triton_tiling_propagation.cc, where products are fused with what comes before them.
_LEFT_OUT = "--xla_gpu_enable_triton_gemm"


def silence() -> None:
    """Keep what XLA logs, such as that a compilation is slow, from users, who cannot act on it; what fails is raised
    all the same. `TF_CPP_MIN_LOG_LEVEL=0` shows it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def avoid_faults() -> None:
    """Leave out what is known to fail, unless XLA_FLAGS say something of it themselves. Only GPUs look at this."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _LEFT_OUT not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_LEFT_OUT}=false".strip()
