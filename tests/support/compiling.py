"""How the programs of tests are compiled. As a program it prints the flags, for what is run beside tests:

export XLA_FLAGS=$(python tests/support/compiling.py)
"""

from importlib.metadata import version
from typing import Any

_HAS_OLD_EMITTERS = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
_OLD = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

#: For programs that run a few times: compiling them fast beats compiling them well. With XLA's older emitters, which
#: JAX 0.11 has no more, a short training takes half the time that it takes with the new ones at either level.
FAST = f"--xla_gpu_autotune_level=0 {_OLD if _HAS_OLD_EMITTERS else '--xla_backend_optimization_level=1'}"

#: For `jax.jit`, where a test is about rounding or runs a program often: takes that back, as users have it.
USUAL: dict[str, Any] = {"xla_backend_optimization_level": 3}
if _HAS_OLD_EMITTERS:
    USUAL["xla_cpu_use_fusion_emitters"] = True

if __name__ == "__main__":
    print(FAST)
