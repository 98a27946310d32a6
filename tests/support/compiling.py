"""How programs of users are compiled, where a test is about rounding or runs a program often."""

import os
from typing import Any

#: For `jax.jit`: takes back what conftest.py chose for the tests.
USUAL: dict[str, Any] = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    USUAL["xla_cpu_use_fusion_emitters"] = True
