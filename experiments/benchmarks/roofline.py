"""How far is each part of a step from what the device can do? Its operations and bytes against measured ceilings.

python -m experiments.benchmarks.roofline resnet50_ibn
python -m experiments.benchmarks.roofline debug --batch 8     # small enough for a CPU

The ceilings are measured in the same run: a large matrix product, and an addition to a large array. A part can be no
faster than its operations at the one or its bytes at the other; the slower of the two is its bound. Operations are
those that the networks need by formula. Bytes are read off the compiled program: each kernel reads its inputs and
writes its outputs once, loops as often as they run, library calls without their workspace. Caches may spare some of
them, so that a part of small arrays may seem faster than its bound.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import Positional

from cion_jax.config import Precision, Pretraining
from cion_jax.models.precision import dtype_of, products_in
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


class _Operation(NamedTuple):
    """A line of a compiled program."""

    kind: str
    size: int
    """Bytes of its result."""
    operands: list[str]
    """Names of the operations that it reads; of a parameter, its number."""
    attributes: str
    """What stands behind the operands: `calls=`, `body=`, `backend_config=`."""
    is_root: bool
    """Whether its result is that of its computation."""


#: Computations by name, each with its operations by name. XLA calls a function in a program a computation.
_Program = dict[str, dict[str, _Operation]]

#: The first line of a computation: `%fused_computation.3 (param_0: f32[8,4], param_1: s32[]) -> f32[8] {`; the one with
#: ENTRY is the program itself. Groups: ENTRY or None, name.
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
#: An operation: `  ROOT %add.5 = f32[8,4]{1,0} add(%p.1, %p.2), metadata={...}`; the result may be a tuple
#: `(f32[8], s32[])`. Groups: ROOT or None, name, shape of the result, kind, all that stands behind the bracket.
_OPERATION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.+?) ([\w-]+)\((.*)$")
#: An array in a shape: `f32[8,4]`, `pred[]`, `f8e4m3fn[16]`. Groups: type, its bits (none for pred), sides.
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
#: A name that an operation mentions: `%add.5`.
_NAME = re.compile(r"%([\w.-]+)")
#: How often a `while` runs, where XLA knows it: `"known_trip_count":{"n":"12"}`.
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
#: Computations that an operation calls: `calls=%fused.3`, `body=%region.1`, `branch_computations={%a, %b}`. A
#: loop's `condition=` is left out: it is read and written by nobody else.
_CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations)=\{?((?:%[\w.-]+(?:, )?)+)")
#: Kinds that are no kernels: they name, pack or rename what is there already.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id")
#: Kinds that read as many bytes of their first operand as they write.
_SLICES = ("slice", "dynamic-slice", "gather")


def traffic(text: str) -> float:
    """Bytes that the kernels of a compiled program, as XLA prints it, read and write."""
    program, entry = _parsed(text)
    return _computation_bytes(program, entry)


def _parsed(text: str) -> tuple[_Program, str]:
    """The program, and the name of the computation in which it begins."""
    program: _Program = {}
    entry = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            program[header[2]] = computation = {}
            entry = header[2] if header[1] else entry
        elif program and (match := _OPERATION.match(line)):
            root, name, shape, kind, rest = match.groups()
            inside, _, attributes = rest.partition(")")
            operands = [inside] if kind == "parameter" else _NAME.findall(inside)
            # A library call has its workspace as a second result, which is no traffic that it must have.
            sizes = list(_sizes(shape))[: 1 if kind == "custom-call" else None]
            computation[name] = _Operation(kind, sum(sizes), operands, attributes, bool(root))
    return program, entry


def _sizes(shape: str) -> Iterator[int]:
    """Bytes of each array in a shape; pred is XLA's bool, a byte each."""
    for kind, bits, sides in _ARRAY.findall(shape):
        elements = int(np.prod([int(side) for side in sides.split(",") if side]))
        yield elements * (8 if kind == "pred" else int(bits)) // 8


def _computation_bytes(program: _Program, name: str) -> float:
    return sum(_operation_bytes(program, program[name], operation) for operation in program[name].values())


def _operation_bytes(program: _Program, computation: dict[str, _Operation], operation: _Operation) -> float:
    """Bytes of one operation, and of all that it calls as kernels of their own."""
    called = [name for names in _CALLED.findall(operation.attributes) for name in _NAME.findall(names)]
    if operation.kind in _FREE or operation.kind.endswith("-done"):
        return 0
    if operation.kind == "while":
        trips = _TRIPS.search(operation.attributes)
        return int(trips[1] if trips else 1) * _computation_bytes(program, called[0])
    if operation.kind in ("call", "async-start"):
        return _computation_bytes(program, called[0])
    if operation.kind == "conditional":
        return max(_computation_bytes(program, branch) for branch in called)
    inputs = [computation[name].size for name in operation.operands]
    if operation.kind == "fusion":
        return _fusion_bytes(program[called[0]], inputs)
    if operation.kind in _SLICES:
        return 2 * operation.size
    if operation.kind == "dynamic-update-slice":  # (array, part, place): the part is read, and written in its place
        return 2 * inputs[1]
    return operation.size + sum(inputs)


def _fusion_bytes(fused: dict[str, _Operation], inputs: list[int]) -> float:
    """Bytes that a fusion reads of its inputs and writes: of an array that it only cuts or fills, the part."""
    read = 0
    for name, parameter in fused.items():
        if parameter.kind != "parameter":
            continue
        uses = [use for use in fused.values() if name in use.operands and use.kind != "parameter"]
        if all(use.kind in _SLICES and use.operands[0] == name for use in uses):
            read += sum(use.size for use in uses)
        elif not all(use.kind == "dynamic-update-slice" and use.operands[0] == name for use in uses):
            read += inputs[int(parameter.operands[0])]
    return read + sum(_written(fused, operation) for operation in fused.values() if operation.is_root)


def _written(fused: dict[str, _Operation], operation: _Operation) -> int:
    """Bytes that a fusion writes for its result: of an array that is filled in place, the part."""
    if operation.kind in ("tuple", "bitcast"):
        return sum(_written(fused, fused[name]) for name in operation.operands)
    if operation.kind == "dynamic-update-slice":
        return fused[operation.operands[1]].size
    return operation.size


if __name__ == "__main__":
    command(main)
