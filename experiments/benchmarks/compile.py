"""How long does the step of each backbone take to compile? No step is run.

python -m experiments.benchmarks.compile                   # every row of experiments/; up to an hour on two cores
python -m experiments.benchmarks.compile resnet50_ibn vit_small
"""

import time
from dataclasses import replace
from typing import Any

import jax
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.pretrain.state import mesh_of
from cion_jax.pretrain.step import StepConfig, lowered
from cion_jax.recipes import RECIPES, recipe
from cion_jax.run.plan import instances_at, model_of
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import STEP
from experiments.benchmarks.timing import environment


def main(names: Positional[tuple[str, ...]] = ()) -> None:
    """Print a Markdown table: seconds for tracing the step to StableHLO, and for XLA to make a program of it.

    Args:
        names: Rows, or files of settings; without any all rows.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{environment('jax', 'jaxlib')}, {jax.device_count()} x {jax.devices()[0].device_kind}, batches of {STEP}\n")
    print("| | tracing, s | compiling, s | StableHLO, lines |\n|---|---|---|---|")
    for name in names or RECIPES:
        traced, compiled, lines = seconds(recipe(name))
        print(f"| {name} | {traced:.1f} | {compiled:.1f} | {lines:,} |", flush=True)


def seconds(row: Pretraining) -> tuple[float, float, int]:
    """Tracing, compiling, and the size of what is compiled."""
    precision: Any = "float32" if jax.default_backend() == "cpu" else row.precision
    settings = replace(row, batch=STEP * jax.device_count(), accumulate=1, precision=precision)
    model, mesh = model_of(settings), mesh_of(jax.device_count(), settings.model_axis)
    config = StepConfig(settings, model, instances_at(settings, settings.epochs - 1), mesh)
    began = time.perf_counter()
    step = lowered(config)
    traced = time.perf_counter()
    step.compile()
    return traced - began, time.perf_counter() - traced, len(step.as_text().splitlines())


if __name__ == "__main__":
    command(main)
