"""How long does the step of each backbone take to compile? No step is run.

python -m experiments.bench_compile                   # every row of experiments/; up to an hour on two cores
python -m experiments.bench_compile resnet50_ibn vit_small
"""

import time
from dataclasses import replace
from typing import Any

import jax
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.pretrain.plan import instances_at, model_of
from cion_jax.pretrain.state import mesh_of
from cion_jax.pretrain.step import Recipe, lowered
from experiments.command import command
from experiments.memory import STEP
from experiments.rows import ROWS, find
from experiments.timing import environment


def main(names: Positional[tuple[str, ...]] = ()) -> None:
    """Print a Markdown table: seconds for tracing the step to StableHLO, and for XLA to make a program of it.

    Args:
        names: Rows, or files of settings; without any all rows.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{environment('jax', 'jaxlib')}, {jax.device_count()} x {jax.devices()[0].device_kind}, batches of {STEP}\n")
    print("| | tracing, s | compiling, s | StableHLO, lines |\n|---|---|---|---|")
    for name in names or ROWS:
        traced, compiled, lines = seconds(find(name))
        print(f"| {name} | {traced:.1f} | {compiled:.1f} | {lines:,} |", flush=True)


def seconds(row: Pretraining) -> tuple[float, float, int]:
    """Tracing, compiling, and the size of what is compiled."""
    precision: Any = "float32" if jax.default_backend() == "cpu" else row.precision
    settings = replace(row, batch=STEP * jax.device_count(), accumulate=1, precision=precision)
    model, mesh = model_of(settings), mesh_of(jax.device_count(), settings.model_axis)
    recipe = Recipe(settings, model, instances_at(settings, settings.epochs - 1), mesh)
    began = time.perf_counter()
    step = lowered(recipe)
    traced = time.perf_counter()
    step.compile()
    return traced - began, time.perf_counter() - traced, len(step.as_text().splitlines())


if __name__ == "__main__":
    command(main)
