"""What does a step of training cost, and where does its time go? Any row, on whatever devices there are.

python -m experiments.benchmarks.step resnet50_ibn
python -m experiments.benchmarks.step resnet18 --height 64 --local-crops 2     # small enough for a CPU
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.stages import Compiled
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.data.augment import multi_crop
from cion_jax.models.complexity import countable, multiply_adds
from cion_jax.models.precision import dtype_of
from cion_jax.pretrain.flops import step_flops
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import TrainState
from cion_jax.pretrain.step import StepConfig, Views, distillation_loss, forward, update
from cion_jax.programs.devices import utilization
from cion_jax.run.method import abstract_state, jit_step
from cion_jax.run.pretraining import PretrainingMethod, check, check_sizes, instances_at, model_of
from cion_jax.run.sharding import batch_sharding, make_mesh, replicated, shardings_of
from experiments.benchmarks.command import command
from experiments.benchmarks.options import DEFAULTS, StepOptions, on_cpu
from experiments.benchmarks.timing import environment, rates, resident

#: As in the midst of a training, but so small that any number of steps on noise stays finite.
VALUES = StepValues(1e-6, 0.1, 1e-3, False)
#: The rows of the tables.
WHOLE = "whole step"
AUGMENT = "augment"
TEACHER = "teacher forward"
STUDENT = "student forward and backward"
HEAD = "head and loss, forward and backward"
UPDATE = "update of student and teacher"
FORWARD = "(student forward alone, not in the sum)"


def main(name: Positional[str], step: StepOptions = DEFAULTS) -> None:
    """Time a whole step and its parts, which take turns, on images that are on the devices already.

    Args:
        name: A row, or a file of settings.
        step: Its size, and how often it runs.
    """
    devices = jax.device_count()
    config = step_config(step.fitted_settings(name, devices), devices)
    row = config.settings
    crops = row.crops
    views = f"2 crops of {_size(crops.global_size)}, {crops.local_crops} of {_size(crops.local_size)}"
    print(f"{environment('jax', 'jaxlib')}, {devices} x {jax.devices()[0].device_kind}")
    print(f"{row.backbone}, {row.batch} images of {_size(row.image_size)}, {views}, {row.precision},", end=" ")
    print(f"K = {config.instances}, {row.head.prototypes:,} prototypes\n")
    print("\n".join(measure(config, step)))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def step_config(settings: Pretraining, devices: int) -> StepConfig:
    """What a step on so many devices compiles in, with the last epoch's K."""
    check(settings, devices)
    config = StepConfig(
        settings,
        model_of(settings),
        instances_at(settings, settings.epochs - 1),
        make_mesh(devices, settings.model_axis),
    )
    check_sizes(settings, config.model)
    return config


def jitted_step(config: StepConfig, state: TrainState) -> Any:
    """The step of training itself, as one program for such a state; it uses up the state that it is given."""
    return jit_step(_method(config), config.instances, config.mesh, state)


def inputs(config: StepConfig) -> tuple[TrainState, Array, StepValues]:
    """A fresh state, images of noise and the values of schedules, placed where a step wants them."""
    settings = config.settings
    method = _method(config)
    init = jax.jit(method.init, out_shardings=shardings_of(abstract_state(method, config.mesh)))
    noise = np.random.default_rng(0).integers(0, 256, (1, settings.batch, *settings.image_size, 3), np.uint8)
    return (
        init(jax.random.key(0), method.start),
        jax.device_put(noise, batch_sharding(config.mesh)),
        jax.device_put(VALUES, replicated(config.mesh)),
    )


def _method(config: StepConfig) -> PretrainingMethod:
    return PretrainingMethod(config.settings, config.model)


def measure(config: StepConfig, options: StepOptions) -> list[str]:
    """Two Markdown tables: the whole step, and its parts."""
    state, images, values = inputs(config)
    began = time.perf_counter()
    lowered = jitted_step(config, state).lower(state, images, values)
    traced = time.perf_counter()
    step = lowered.compile()
    compiled = time.perf_counter()
    state, peak = _peak(step, state, images, values)
    works = programs(config, step, state, images, values)
    speeds = rates({name: partial(turn, work.run, options.repeats()) for name, work in works.items()}, options.rounds)
    seconds = {name: [1 / speed for speed in speeds[name]] for name in works}
    counted = (step.cost_analysis() or {}).get("flops", math.nan) * jax.device_count()
    return [
        *("| | |", "|---|---|", *_whole(config, seconds.pop(WHOLE))),
        f"| operations counted by XLA (loops once, library calls never) | {counted / 1e9:,.1f} GFLOP |",
        f"| tracing, compiling | {traced - began:.1f} s, {compiled - traced:.1f} s |",
        f"| memory of a device, by XLA | {_memory(step)} |",
        f"| memory, measured | {peak} |",
        "\nEach part is a program of its own, so their sum is not the step: XLA cannot join what it sees apart.\n",
        *_breakdown(seconds, {name: works[name].flop for name in seconds}),
    ]


def turn(run: Callable[[], Any], times: int) -> int:
    """Run it so many times, and wait for the last result."""
    for _ in range(times):
        result = run()
    jax.block_until_ready(result)
    return times


class Parts(NamedTuple):
    """The programs that a step is made of, each compiled alone. What one returns is what those after it take."""

    augment: Any
    teacher_forward: Any
    student_forward: Any
    loss_gradients: Any
    """Of the head, and of the student's features."""
    student_gradients: Any
    """Of the backbone, from those of its features: forward and backward."""
    update: Any


class _KnownFeatures(NamedTuple):
    """Stands for the backbone where features are known: the student's are its views, the teacher's are kept here."""

    teacher: Array

    def apply(self, variables: Any, views: Array, train: bool, rng: Array | None) -> tuple[Array, Any]:
        is_teacher = rng is None  # which has no drop path
        return (self.teacher if is_teacher else views), {}


def parts(config: StepConfig, places: TrainState) -> Parts:
    """The parts of a step: one after the other they do what it does."""
    settings, model = config.settings, config.model

    def augment(images: Array, key: Array) -> Views:
        return multi_crop(images, key, settings.crops, dtype_of(settings.precision))

    def teacher_forward(state: TrainState, crops: Views) -> tuple[Array, Any]:
        return forward(model, state.teacher, state.batch_stats["teacher"], crops[0], None)

    def student_forward(backbone: Any, state: TrainState, crops: Views, key: Array) -> tuple[list[Array], Any]:
        features_BxVxF = []
        batch_stats = state.batch_stats["student"]
        for views, views_key in zip(crops, jax.random.split(key), strict=True):
            if views.size:  # there may be no local crops
                features, batch_stats = forward(model, {"backbone": backbone}, batch_stats, views, views_key)
                views = features.reshape(*views.shape[:2], -1)
            features_BxVxF.append(views)
        return features_BxVxF, batch_stats

    def loss_gradients(state: TrainState, teacher: Array, features: list[Array]) -> tuple[Any, list[Array], Array, Any]:
        student_head, teacher_head = (
            {"backbone": {}, "head": params["head"]} for params in (state.student, state.teacher)
        )
        known: Any = _KnownFeatures(teacher)
        no_stats: dict[str, Any] = {"student": {}, "teacher": {}}
        gradient = jax.grad(distillation_loss, argnums=(0, 4), has_aux=True)
        (d_student, d_features), (_, center, metrics) = gradient(
            student_head,
            replace(config, model=known),
            state._replace(teacher=teacher_head),
            no_stats,
            features,
            jax.random.key(0),
        )
        return d_student["head"], d_features, center, metrics

    def student_gradients(state: TrainState, crops: Views, key: Array, d_features: list[Array]) -> tuple[Any, Any]:
        _, backward, batch_stats = jax.vjp(
            lambda backbone: student_forward(backbone, state, crops, key), state.student["backbone"], has_aux=True
        )
        return backward(d_features)[0], batch_stats

    return Parts(
        jax.jit(augment),
        jax.jit(teacher_forward),
        jax.jit(student_forward),
        jax.jit(loss_gradients),
        jax.jit(student_gradients),
        jax.jit(partial(update, settings.optimization), donate_argnums=0, out_shardings=places),
    )


class Program(NamedTuple):
    """A compiled part of a step."""

    compiled: Compiled
    run: Callable[[], Any]
    flop: float
    """Operations that it needs by formula."""


def programs(
    config: StepConfig, step: Compiled, state: TrainState, images: Array, values: StepValues
) -> dict[str, Program]:
    """The whole step and its parts, each compiled alone, as calls without arguments that take turns on one state."""
    places = shardings_of(state)
    part = parts(config, places)
    key = jax.random.key(0)
    backbone = state.student["backbone"]
    augment, crops = _compiled(part.augment, images[0], key)
    teacher, (teacher_features, teacher_stats) = _compiled(part.teacher_forward, state, crops)
    student, (features, _) = _compiled(part.student_forward, backbone, state, crops, key)
    loss, (d_head, d_features, center, _) = _compiled(part.loss_gradients, state, teacher_features, features)
    backward, (d_backbone, student_stats) = _compiled(part.student_gradients, state, crops, key, d_features)
    moved = (
        {"backbone": d_backbone, "head": d_head},
        {"student": student_stats, "teacher": teacher_stats},
        center,
        values,
    )
    renew = part.update.lower(state, *moved).compile()

    counted = parts(replace(config, model=countable(config.model)), places)
    teacher_flop = 2.0 * multiply_adds(counted.teacher_forward.trace(state, crops).jaxpr.jaxpr)
    student_flop = 2.0 * multiply_adds(counted.student_forward.trace(backbone, state, crops, key).jaxpr.jaxpr)
    flop = step_flops(config.settings, config.model)
    held = [state]  # step and update use up the state that they are given

    def run_step() -> Any:
        held[0], metrics = step(held[0], images, values)
        return metrics

    def run_update() -> Any:
        held[0] = renew(held[0], *moved)
        return held[0].step

    return {
        WHOLE: Program(step, run_step, flop),
        AUGMENT: Program(augment, lambda: augment(images[0], key), 0.0),
        TEACHER: Program(teacher, lambda: teacher(held[0], crops), teacher_flop),
        STUDENT: Program(backward, lambda: backward(held[0], crops, key, d_features), 3 * student_flop),
        HEAD: Program(loss, lambda: loss(held[0], teacher_features, features), flop - teacher_flop - 3 * student_flop),
        UPDATE: Program(renew, run_update, 0.0),
        FORWARD: Program(student, lambda: student(held[0].student["backbone"], held[0], crops, key), student_flop),
    }


def _compiled(part: Any, *arguments: Any) -> tuple[Compiled, Any]:
    """A part, and what it returns."""
    program = part.lower(*arguments).compile()
    return program, program(*arguments)


def _peak(step: Compiled, state: TrainState, images: Array, values: StepValues) -> tuple[TrainState, str]:
    """The state after three steps, and the most memory that was taken until then."""
    before = resident("VmRSS") / 1e9
    if on_cpu():
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        state, _ = jax.block_until_ready(step(state, images, values))
    if on_cpu():
        return state, f"in these steps the process grew from {before:.2f} GB to {resident('VmHWM') / 1e9:.2f} GB"
    stats = jax.devices()[0].memory_stats() or {}
    return state, f"{stats.get('peak_bytes_in_use', math.nan) / 1e9:.2f} GB in use on a device at most"


def _memory(step: Compiled) -> str:
    sizes: Any = step.memory_analysis()
    temporary, arguments, results, shared = (
        f"{getattr(sizes, f'{name}_size_in_bytes') / 1e9:.2f} GB" for name in ("temp", "argument", "output", "alias")
    )
    return f"{temporary} temporary, {arguments} arguments, {results} results, of which {shared} in arguments' place"


def _whole(config: StepConfig, seconds: list[float]) -> list[str]:
    images = config.settings.batch
    flop = step_flops(config.settings, config.model)
    median = statistics.median(seconds)
    kind = jax.devices()[0].device_kind
    spread = f"{images / max(seconds):,.1f} to {images / min(seconds):,.1f}"
    used = utilization(flop / median, kind, jax.device_count())
    share = f"the peak of {kind} is not known" if used is None else f"{used:.1%}"
    return [
        f"| whole step | {images / median:,.1f} images/s ({spread}), {1e3 * median:,.1f} ms |",
        f"| operations by formula | {flop / 1e9:,.1f} GFLOP, {flop / median / 1e9:,.0f} GFLOP/s |",
        f"| share of the devices' peak in 16 bits (MFU) | {share} |",
    ]


def _breakdown(seconds: Mapping[str, list[float]], flop: Mapping[str, float]) -> list[str]:
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    total = sum(median for name, median in medians.items() if name != FORWARD)
    lines = ["| part | ms (median) | range | of the sum | GFLOP | GFLOP/s |", "|---|---|---|---|---|---|"]
    for name, median in medians.items():
        gflop = flop[name] / 1e9
        spread = f"{1e3 * min(seconds[name]):,.1f} to {1e3 * max(seconds[name]):,.1f}"
        share = "" if name == FORWARD else f"{median / total:.1%}"
        operations = f"{gflop:,.1f} | {gflop / median:,.0f}" if gflop else " | "
        lines.append(f"| {name} | {1e3 * median:,.1f} | {spread} | {share} | {operations} |")
    return lines


if __name__ == "__main__":
    command(main)
