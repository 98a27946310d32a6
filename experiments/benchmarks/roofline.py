"""How far is each part of a step from what the device can do? Its operations and bytes against measured ceilings.

python -m experiments.benchmarks.roofline resnet50_ibn
python -m experiments.benchmarks.roofline debug --batch 8     # small enough for a CPU

The ceilings are measured in the same run: a large matrix product, and an addition to a large array. A part can be no
faster than its operations at the one or its bytes at the other; the slower of the two is its bound. Operations are
those that the networks need by formula. Bytes are read off the compiled program: each kernel reads its inputs and
writes its outputs once, loops as often as they run, library calls without their workspace. Caches may spare some of
them, so that a part of small arrays may seem faster than its bound.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from tyro.conf import Positional

from cion_jax.config import Precision, Pretraining
from cion_jax.models.precision import dtype_of, products_in
from cion_jax.programs.cost import traffic
from experiments.benchmarks.command import command
from experiments.benchmarks.options import DEFAULTS, StepOptions
from experiments.benchmarks.step import FORWARD, WHOLE, inputs, jitted_step, programs, step_config, turn
from experiments.benchmarks.timing import environment, rates


def main(name: Positional[str], step: StepOptions = DEFAULTS) -> None:
    """Time a whole step and its parts on one device, and print how near each is to its bound.

    Args:
        name: A row, or a file of settings.
        step: Its size, and how often it runs.
    """
    print(f"{environment('jax', 'jaxlib')}, {jax.devices()[0].device_kind}\n")
    report(replace(step.fitted_settings(name, 1), model_axis=1), step)


def report(settings: Pretraining, options: StepOptions) -> None:
    """Print the ceilings and a Markdown table of the whole step and its parts."""
    config = step_config(settings, 1)
    flop_rate, byte_rate = ceilings(settings.precision)
    print(f"{settings.backbone}, {settings.batch} images, {settings.precision}, K = {config.instances}.", end=" ")
    print(f"Ceilings, measured: {flop_rate / 1e12:,.2f} TFLOP/s, {byte_rate / 1e9:,.0f} GB/s\n")
    print("| part | ms (median) | GFLOP | TFLOP/s | GB | GB/s | bound by | bound, ms | bound / time |")
    print("|---|---|---|---|---|---|---|---|---|")
    state, images, values = inputs(config)
    step = jitted_step(config, state).lower(state, images, values).compile()
    works = programs(config, step, state, images, values)
    del works[FORWARD]
    speeds = rates({name: partial(turn, work.run, options.repeats()) for name, work in works.items()}, options.rounds)
    excess = {}
    for name, work in works.items():
        seconds = 1 / statistics.median(speeds[name])
        moved = traffic(work.compiled.as_text() or "")
        bounds = {"operations": work.flop / flop_rate, "bytes": moved / byte_rate}
        bound, least = max(bounds.items(), key=lambda item: item[1])
        excess[name] = seconds - least
        cells = [name, f"{1e3 * seconds:,.2f}", f"{work.flop / 1e9:,.1f}", f"{work.flop / seconds / 1e12:,.2f}"]
        cells += [f"{moved / 1e9:,.2f}", f"{moved / seconds / 1e9:,.0f}", bound, f"{1e3 * least:,.2f}"]
        print(f"| {' | '.join(cells)} | {least / seconds:.0%} |", flush=True)
    farthest = max(excess.keys() - {WHOLE}, key=excess.__getitem__)
    print(f"\nMost time beyond its bound: {farthest}, {1e3 * excess[farthest]:,.2f} ms.\n", flush=True)


def ceilings(precision: Precision, seconds: float = 0.3) -> tuple[float, float]:
    """FLOP/s of a product of large matrices and bytes/s of adding to a large array: the best of many times."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(dtype_of(precision))
    multiply = jax.jit(products_in(precision)(jnp.matmul))
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.ones((size, 8 * size))]

    def run_add() -> Any:
        held[0] = add(held[0])
        return held[0]

    def shortest(run: Callable[[], Any]) -> float:
        turn(run, 3)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            turn(run, 10)
            times.append((time.perf_counter() - began) / 10)
        return min(times)

    return 2 * size**3 / shortest(lambda: multiply(a, b)), 2 * held[0].nbytes / shortest(run_add)


if __name__ == "__main__":
    command(main)
