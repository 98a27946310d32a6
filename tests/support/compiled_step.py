"""Prints what the devices of the tiny step exchange, as lines "OPERATION SHAPE": on eight pretended devices.

python tests/support/compiled_step.py MODEL_AXIS
"""

import re
import sys
from dataclasses import replace

from cion_jax.models.zoo import ZOO
from cion_jax.run.method import lower_step
from cion_jax.run.pretraining import pretraining
from cion_jax.run.sharding import make_mesh
from tiny import FAMILY, SETTINGS

EXCHANGE = re.compile(r"= (.+?) (all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute)(?:-start)?\(")

if __name__ == "__main__":
    model_axis = int(sys.argv[1])
    ZOO["tiny"] = FAMILY
    settings = replace(SETTINGS, batch=64, model_axis=model_axis)
    program = lower_step(pretraining(settings), 2, make_mesh(8, model_axis)).compile().as_text()
    print("\n".join(f"{kind} {shape}" for shape, kind in EXCHANGE.findall(program)))
