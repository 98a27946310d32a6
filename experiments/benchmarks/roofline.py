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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.models.complexity import multiply_adds
from cion_jax.pretrain.state import mesh_of, placement
from cion_jax.pretrain.step import StepConfig, train_step
from cion_jax.run.plan import check, check_sizes, flops, instances_at, model_of
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import STEP
from experiments.benchmarks.step import AUGMENT, HEAD, STUDENT, TEACHER, UPDATE, WHOLE, fitting, inputs, parts, sized
from experiments.benchmarks.timing import environment, rates


def main(
    name: Positional[str],
    batch: int | None = None,
    height: int | None = None,
    local_crops: int | None = None,
    precision: Literal["bfloat16", "float32"] | None = None,
    rounds: int = 5,
    steps: int | None = None,
) -> None:
    """Time a whole step and its parts on one device, and print how near each is to its bound.

    Args:
        name: A row, or a file of settings.
        batch: Images; by default 24 on a CPU, elsewhere what should fit by `experiments.benchmarks.memory`.
        height: Of images and global crops, instead of the row's; they are half as wide, local crops half as large.
        local_crops: Instead of the row's.
        precision: Instead of the row's; on a CPU the default is float32.
        rounds: How often each has its turn; the printed figures are medians.
        steps: How often each runs in a turn; by default once on a CPU, elsewhere ten times.
    """
    print(f"{environment('jax', 'jaxlib')}, {jax.devices()[0].device_kind}\n")
    settings = replace(sized(name, height, local_crops, precision), model_axis=1)
    most = STEP if jax.default_backend() == "cpu" else fitting(settings, 1)
    report(replace(settings, batch=batch or most), rounds, steps)


def config_of(settings: Pretraining) -> StepConfig:
    """What a step on one device compiles in, at the last epochs' K."""
    check(settings, 1)
    config = StepConfig(settings, model_of(settings), instances_at(settings, settings.epochs - 1), mesh_of(1, 1))
    check_sizes(settings, config.model)
    return config


class Program(NamedTuple):
    """A compiled part of a step."""

    compiled: Compiled
    run: Callable[[], Any]
    flop: float
    """What it needs by formula."""


def report(settings: Pretraining, rounds: int, steps: int | None) -> None:
    """Print the ceilings and a Markdown table of the whole step and its parts."""
    config, times = config_of(settings), steps or (1 if jax.default_backend() == "cpu" else 10)
    computing, moving = ceilings(settings.precision)
    print(f"{settings.backbone}, {settings.batch} images, {settings.precision}, K = {config.instances}.", end=" ")
    print(f"Ceilings, measured: {computing / 1e12:,.2f} TFLOP/s, {moving / 1e9:,.0f} GB/s\n")
    print("| part | ms (median) | GFLOP | TFLOP/s | GB | GB/s | bound by | bound, ms | bound / time |")
    print("|---|---|---|---|---|---|---|---|---|")
    works = programs(config)
    speeds = rates({name: partial(_turn, work.run, times) for name, work in works.items()}, rounds)
    above = {}
    for name, work in works.items():
        seconds, moved = 1 / statistics.median(speeds[name]), traffic(work.compiled.as_text() or "")
        bounds = {"operations": work.flop / computing, "bytes": moved / moving}
        bound, least = max(bounds.items(), key=lambda item: item[1])
        above[name] = seconds - least
        cells = [name, f"{1e3 * seconds:,.2f}", f"{work.flop / 1e9:,.1f}", f"{work.flop / seconds / 1e12:,.2f}"]
        cells += [f"{moved / 1e9:,.2f}", f"{moved / seconds / 1e9:,.0f}", bound, f"{1e3 * least:,.2f}"]
        print(f"| {' | '.join(cells)} | {least / seconds:.0%} |", flush=True)
    farthest = max(above.keys() - {WHOLE}, key=above.__getitem__)
    print(f"\nMost time beyond its bound: {farthest}, {1e3 * above[farthest]:,.2f} ms.\n", flush=True)


def _turn(run: Callable[[], Any], times: int) -> int:
    for _ in range(times):
        done = run()
    jax.block_until_ready(done)
    return times


def ceilings(precision: str, seconds: float = 0.3) -> tuple[float, float]:
    """FLOP/s of a product of large matrices and bytes/s of adding to a large array: the best of many times."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    a, b = jax.random.normal(jax.random.key(0), (2, size, size)).astype(precision)
    multiply, add = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jnp.ones((size, 8 * size))]

    def grow() -> Any:
        held[0] = add(held[0])
        return held[0]

    def shortest(run: Callable[[], Any]) -> float:
        _turn(run, 3)
        found, begin = [], time.perf_counter()
        while time.perf_counter() < begin + seconds:
            began = time.perf_counter()
            _turn(run, 10)
            found.append((time.perf_counter() - began) / 10)
        return min(found)

    return 2 * size**3 / shortest(lambda: multiply(a, b)), 2 * held[0].nbytes / shortest(grow)


def programs(config: StepConfig) -> dict[str, Program]:
    """The whole step and its parts, each compiled alone, as calls that take turns on one state."""
    settings, (state, images, now) = config.settings, inputs(config)
    step = train_step(config, jax.eval_shape(lambda: state)).lower(state, images, now).compile()  # type: ignore[attr-defined]
    apart, key, part = parts(config, placement(config.mesh, state)), jax.random.key(0), images[0]
    body = state.student["backbone"]
    augment, crops = _compiled(apart.augment, part, key)
    teach, (teacher, old) = _compiled(apart.teach, state, crops)
    seen = jax.tree.map(_noise, jax.eval_shape(apart.look, body, state, crops, key)[0])
    judge, (top, below, center, _) = _compiled(apart.judge, state, teacher, seen)
    learn, (slopes, moved) = _compiled(apart.learn, state, crops, key, below)
    last = {"backbone": slopes, "head": top}, {"student": moved, "teacher": old}, center, now
    renew = apart.renew.lower(state, *last).compile()
    needed = [2.0 * multiply_adds(apart.teach.trace(state, crops).jaxpr.jaxpr)]
    needed.append(6.0 * multiply_adds(apart.look.trace(body, state, crops, key).jaxpr.jaxpr))
    total, held = flops(settings, config.model), [state]  # step and update use up the state that they are given

    def whole() -> Any:
        held[0], metrics = step(held[0], images, now)
        return metrics

    def update() -> Any:
        held[0] = renew(held[0], *last)
        return held[0].step

    return {
        WHOLE: Program(step, whole, total),
        AUGMENT: Program(augment, lambda: augment(part, key), 0.0),
        TEACHER: Program(teach, lambda: teach(held[0], crops), needed[0]),
        STUDENT: Program(learn, lambda: learn(held[0], crops, key, below), needed[1]),
        HEAD: Program(judge, lambda: judge(held[0], teacher, seen), total - sum(needed)),
        UPDATE: Program(renew, update, 0.0),
    }


def _compiled(part: Any, *given: Any) -> tuple[Compiled, Any]:
    """A part, and what it returns."""
    program = part.lower(*given).compile()
    return program, program(*given)


def _noise(shape: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape.shape), shape.dtype)


class _Operation(NamedTuple):
    """A line of a compiled program."""

    kind: str
    size: int
    """Bytes of its result."""
    operands: list[str]
    rest: str
    is_root: bool


_Program = dict[str, dict[str, _Operation]]
_BEGIN = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.+?) ([\w-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations)=\{?((?:%[\w.-]+(?:, )?)+)")
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id")
_SLICES = ("slice", "dynamic-slice", "gather")


def traffic(text: str) -> float:
    """Bytes that the kernels of a compiled program, as XLA prints it, read and write."""
    found: _Program = {}
    main = ""
    for line in text.splitlines():
        if begin := _BEGIN.match(line):
            found[begin[2]] = current = {}
            main = begin[2] if begin[1] else main
        elif found and (match := _LINE.match(line)):
            root, name, shape, kind, rest = match.groups()
            inside, _, beside = rest.partition(")")
            operands = [inside] if kind == "parameter" else re.findall(r"%([\w.-]+)", inside)
            # after a library call's result comes its workspace
            sizes = list(_sizes(shape))[: 1 if kind == "custom-call" else None]
            current[name] = _Operation(kind, sum(sizes), operands, beside, bool(root))
    return _traffic(found, main)


def _sizes(shape: str) -> Iterator[int]:
    for kind, bits, sides in _ARRAY.findall(shape):
        yield int(np.prod([int(side) for side in sides.split(",") if side])) * (8 if kind == "pred" else int(bits)) // 8


def _traffic(program: _Program, name: str) -> float:
    return sum(_moved(program, program[name], operation) for operation in program[name].values())


def _moved(program: _Program, around: dict[str, _Operation], operation: _Operation) -> float:
    """Bytes of one operation, and of all that it calls as kernels of their own."""
    called = [name for names in _CALLED.findall(operation.rest) for name in re.findall(r"%([\w.-]+)", names)]
    if operation.kind in _FREE or operation.kind.endswith("-done"):
        return 0
    if operation.kind == "while":
        trips = _TRIPS.search(operation.rest)
        return int(trips[1] if trips else 1) * _traffic(program, called[0])
    if operation.kind in ("call", "async-start"):
        return _traffic(program, called[0])
    if operation.kind == "conditional":
        return max(_traffic(program, branch) for branch in called)
    given = [around[name].size for name in operation.operands]
    if operation.kind == "fusion":
        return _fused(program[called[0]], given)
    if operation.kind in _SLICES:
        return 2 * operation.size
    if operation.kind == "dynamic-update-slice":
        return 2 * given[1]
    return operation.size + sum(given)


def _fused(inside: dict[str, _Operation], given: list[int]) -> float:
    """Bytes that a fusion reads of its inputs and writes: of an array that it only cuts or fills, the part."""
    read = 0
    for name, parameter in inside.items():
        if parameter.kind != "parameter":
            continue
        uses = [use for use in inside.values() if name in use.operands and use.kind != "parameter"]
        if all(use.kind in _SLICES and use.operands[0] == name for use in uses):
            read += sum(use.size for use in uses)
        elif not all(use.kind == "dynamic-update-slice" and use.operands[0] == name for use in uses):
            read += given[int(parameter.operands[0])]
    return read + sum(_written(inside, operation) for operation in inside.values() if operation.is_root)


def _written(inside: dict[str, _Operation], operation: _Operation) -> int:
    if operation.kind in ("tuple", "bitcast"):
        return sum(_written(inside, inside[name]) for name in operation.operands)
    return inside[operation.operands[1]].size if operation.kind == "dynamic-update-slice" else operation.size


if __name__ == "__main__":
    command(main)
