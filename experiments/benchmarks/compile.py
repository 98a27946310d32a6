"""How long does the step of each backbone take to compile? No step is run.

python -m experiments.benchmarks.compile                   # every row of experiments/; up to an hour on two cores
python -m experiments.benchmarks.compile resnet50_ibn vit_small
"""

import re
import time
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.recipes import RECIPES, recipe
from cion_jax.run.method import lower_step
from cion_jax.run.pretraining import PretrainingMethod, instances_at, model_of
from cion_jax.run.sharding import make_mesh
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import STEP
from experiments.benchmarks.timing import environment


class Compilation(NamedTuple):
    """What it takes to make a program of a step."""

    tracing: float
    """Seconds, to StableHLO."""
    compiling: float
    """Seconds that XLA takes."""
    operations: int
    """Of the StableHLO."""
    megabytes: float
    """Of its text."""


def main(names: Positional[tuple[str, ...]] = ()) -> None:
    """Print a Markdown table: seconds for tracing the step to StableHLO, the size of that, and seconds for XLA to make
    a program of it.

    Args:
        names: Rows, or files of settings; without any all rows.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"{environment('jax', 'jaxlib')}, {jax.device_count()} x {jax.devices()[0].device_kind}, batches of {STEP}\n")
    print("| | tracing, s | operations | StableHLO, MB | compiling, s |\n|---|---|---|---|---|")
    for name in names or RECIPES:
        tracing, compiling, operations, megabytes = compilation(recipe(name))
        print(f"| {name} | {tracing:.1f} | {operations:,} | {megabytes:.1f} | {compiling:.1f} |", flush=True)


def compilation(row: Pretraining) -> Compilation:
    """Trace and compile the step of the last stage."""
    precision: Any = "float32" if jax.default_backend() == "cpu" else row.precision
    settings = replace(row, batch=STEP * jax.device_count(), accumulate=1, precision=precision)
    mesh = make_mesh(jax.device_count(), settings.model_axis)
    method = PretrainingMethod(settings, model_of(settings))
    began = time.perf_counter()
    step = lower_step(method, instances_at(settings, settings.epochs - 1), mesh)
    traced = time.perf_counter()
    step.compile()
    compiled = time.perf_counter()
    text = step.as_text()
    return Compilation(traced - began, compiled - traced, count_operations(text), len(text) / 1e6)


def count_operations(stablehlo: str) -> int:
    """Operations in a program's text, those of functions that are called often counted once."""
    return len(re.findall(r"^\s*(?:%\S+ = )?\"?(?:stablehlo|chlo)\.", stablehlo, re.MULTILINE))


if __name__ == "__main__":
    command(main)
