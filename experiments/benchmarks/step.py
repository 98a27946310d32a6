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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.stages import Compiled
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.data.augment import multi_crop
from cion_jax.models.complexity import multiply_adds
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import TrainState, fresh, mesh_of, placement, shapes
from cion_jax.pretrain.step import StepConfig, Views, distil, forward, images_placement, train_step, update
from cion_jax.recipes import recipe
from cion_jax.run.devices import utilization
from cion_jax.run.plan import check, check_sizes, flops, instances_at, model_of
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import SHARE, STEP, needs
from experiments.benchmarks.timing import environment, rates, resident

#: As in the midst of a training, but so small that any number of steps on noise stays finite.
RATES = StepValues(1e-6, 0.1, 1e-3, False)
WHOLE, AUGMENT, TEACHER = "whole step", "augment", "teacher forward"
STUDENT, FORWARD = "student forward and backward", "(student forward alone, not in the sum)"
HEAD, UPDATE = "head and loss, forward and backward", "update of student and teacher"


def main(
    name: Positional[str],
    batch: int | None = None,
    height: int | None = None,
    local_crops: int | None = None,
    precision: Literal["bfloat16", "float32"] | None = None,
    rounds: int = 5,
    steps: int | None = None,
) -> None:
    """Time a whole step and its parts, which take turns, on images that are on the devices already.

    Args:
        name: A row, or a file of settings.
        batch: Images that go through the networks at once, over all devices; by default 24 on a CPU, elsewhere the
            row's batch or, if that is more, what should fit by `experiments.benchmarks.memory`.
        height: Of images and global crops, instead of the row's; they are half as wide, local crops half as large.
        local_crops: Instead of the row's.
        precision: Instead of the row's; on a CPU the default is float32.
        rounds: How often each has its turn; the printed figures are medians.
        steps: How often each runs in a turn; by default once on a CPU, elsewhere ten times.
    """
    on_cpu, devices = jax.default_backend() == "cpu", jax.device_count()
    row = sized(name, height, local_crops, precision)
    row, crops = replace(row, batch=batch or (STEP if on_cpu else fitting(row, devices))), row.crops
    check(row, devices)
    config = StepConfig(row, model_of(row), instances_at(row, row.epochs - 1), mesh_of(devices, row.model_axis))
    check_sizes(row, config.model)
    views = [f"2 crops of {_size(crops.global_size)}", f"{crops.local_crops} of {_size(crops.local_size)}"]
    print(f"{environment('jax', 'jaxlib')}, {devices} x {jax.devices()[0].device_kind}")
    print(
        f"{row.backbone}, {row.batch} images of {_size(row.image_size)}, {', '.join(views)}, {row.precision},", end=" "
    )
    print(f"K = {config.instances}, {row.head.prototypes:,} prototypes\n")
    print("\n".join(measure(config, rounds, steps or (1 if on_cpu else 10))))


def sized(name: str, height: int | None, local_crops: int | None, precision: Any) -> Pretraining:
    """A row with some of its sizes replaced, its batch in one part; on a CPU in float32 by default."""
    row = replace(recipe(name), accumulate=1)
    crops = row.crops if local_crops is None else replace(row.crops, local_crops=local_crops)
    if height is not None:
        row = replace(row, image_size=(height, height // 2))
        crops = replace(crops, global_size=row.image_size, local_size=(height // 2, height // 4))
    usual = "float32" if jax.default_backend() == "cpu" else row.precision
    return replace(row, crops=crops, precision=precision or usual)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def fitting(settings: Pretraining, devices: int) -> int:
    """The batch of a row, or as many of its images as so many devices should hold."""
    stats = jax.devices()[0].memory_stats() or {}
    each = needs(settings)[settings.remat].fits(round(stats.get("bytes_limit", 0) / SHARE / 1e9))
    return min(settings.batch, devices * max(STEP, each))


def measure(config: StepConfig, rounds: int, steps: int) -> list[str]:
    """Two Markdown tables: the whole step, and its parts."""
    state, images, now = inputs(config)
    began = time.perf_counter()
    lowered = train_step(config, jax.eval_shape(lambda: state)).lower(state, images, now)  # type: ignore[attr-defined]
    traced = time.perf_counter()
    step = lowered.compile()
    compiled = time.perf_counter()
    state, peak = _peak(step, state, images, now)
    works, needed = contestants(config, step, state, images, now)

    def turn(work: Callable[[], Any]) -> int:
        for _ in range(steps):
            done = work()
        jax.block_until_ready(done)
        return steps

    speeds = rates({name: partial(turn, work) for name, work in works.items()}, rounds)
    seconds = {name: [1 / speed for speed in speeds[name]] for name in works}
    counted = (step.cost_analysis() or {}).get("flops", math.nan) * jax.device_count()
    return [
        *("| | |", "|---|---|", *_whole(config, seconds.pop(WHOLE))),
        f"| operations counted by XLA (loops once, library calls never) | {counted / 1e9:,.1f} GFLOP |",
        f"| tracing, compiling | {traced - began:.1f} s, {compiled - traced:.1f} s |",
        f"| memory of a device, by XLA | {_memory(step)} |",
        f"| memory, measured | {peak} |",
        "\nEach part is a program of its own, so their sum is not the step: XLA cannot join what it sees apart.\n",
        *_breakdown(seconds, needed),
    ]


def inputs(config: StepConfig) -> tuple[TrainState, Array, StepValues]:
    """A fresh state, images of noise, and rates, placed where a step wants them."""
    settings = config.settings
    make = partial(fresh, config.model, settings.head, settings.optimization)
    places = placement(config.mesh, shapes(config.model, settings.head, settings.optimization))
    noise = np.random.default_rng(0).integers(0, 256, (1, settings.batch, *settings.image_size, 3), np.uint8)
    return (
        jax.jit(make, out_shardings=places)(jax.random.key(0)),
        jax.device_put(noise, images_placement(config.mesh)),
        jax.device_put(RATES, NamedSharding(config.mesh, PartitionSpec())),
    )


class Parts(NamedTuple):
    """The programs that a step is made of, each compiled alone. What one returns is what those after it take."""

    augment: Any
    teach: Any
    look: Any
    judge: Any
    learn: Any
    renew: Any


class _Known(NamedTuple):
    """In the place of a backbone: the student's features are its views; those of the teacher, who has no rng, known."""

    teacher: Array

    def apply(self, variables: Any, views: Array, train: bool, rng: Array | None) -> tuple[Array, Any]:
        return (self.teacher if rng is None else views), {}


def parts(config: StepConfig, places: TrainState) -> Parts:
    """The parts of a step: one after the other they do what it does."""
    settings, model = config.settings, config.model

    def augment(images: Array, key: Array) -> Views:
        return multi_crop(images, key, settings.crops, jnp.dtype(settings.precision))

    def teach(state: TrainState, crops: Views) -> tuple[Array, Any]:
        return forward(model, state.teacher, state.batch_stats["teacher"], crops[0], None)

    def look(body: Any, state: TrainState, crops: Views, key: Array) -> tuple[list[Array], Any]:
        found, moved = [], state.batch_stats["student"]
        for views, own in zip(crops, jax.random.split(key), strict=True):
            if views.size:  # there may be no local crops
                features, moved = forward(model, {"backbone": body}, moved, views, own)
                views = features.reshape(*views.shape[:2], -1)
            found.append(views)
        return found, moved

    def judge(state: TrainState, teacher: Array, features: list[Array]) -> tuple[Any, list[Array], Array, Any]:
        student, old = ({"backbone": {}, "head": params["head"]} for params in (state.student, state.teacher))
        none: dict[str, Any] = {"student": {}, "teacher": {}}
        known: Any = _Known(teacher)
        gradient = jax.grad(distil, argnums=(0, 4), has_aux=True)
        (top, below), (_, center, metrics) = gradient(
            student, replace(config, model=known), state._replace(teacher=old), none, features, jax.random.key(0)
        )
        return top["head"], below, center, metrics

    def learn(state: TrainState, crops: Views, key: Array, below: list[Array]) -> tuple[Any, Any]:
        _, back, moved = jax.vjp(lambda body: look(body, state, crops, key), state.student["backbone"], has_aux=True)
        return back(below)[0], moved

    def renew(state: TrainState, slopes: Any, moved: dict[str, Any], center: Array, now: StepValues) -> TrainState:
        return update(settings.optimization, state, slopes, moved, center, now)

    last = jax.jit(renew, donate_argnums=0, out_shardings=places)
    return Parts(*map(jax.jit, (augment, teach, look, judge, learn)), last)  # type: ignore[arg-type,call-arg]


def contestants(
    config: StepConfig, step: Compiled, state: TrainState, images: Array, now: StepValues
) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """The whole step and its parts as calls without arguments, and the FLOP that parts need by formula."""
    apart, key, part = parts(config, placement(config.mesh, state)), jax.random.key(0), images[0]
    crops = apart.augment(part, key)
    teacher, old = apart.teach(state, crops)
    seen, moved = apart.look(state.student["backbone"], state, crops, key)
    top, below, center, _ = apart.judge(state, teacher, seen)
    body, _ = apart.learn(state, crops, key, below)
    slopes, statistics = {"backbone": body, "head": top}, {"student": moved, "teacher": old}
    teach = 2.0 * multiply_adds(apart.teach.trace(state, crops).jaxpr.jaxpr)
    look = 2.0 * multiply_adds(apart.look.trace(state.student["backbone"], state, crops, key).jaxpr.jaxpr)
    rest = flops(config.settings, config.model) - teach - 3 * look
    held = [state]  # step and update use up the state that they are given

    def whole() -> Any:
        held[0], metrics = step(held[0], images, now)
        return metrics

    def renew() -> Any:
        held[0] = apart.renew(held[0], slopes, statistics, center, now)
        return held[0].step

    works: dict[str, Callable[[], Any]] = {
        WHOLE: whole,
        AUGMENT: lambda: apart.augment(part, key),
        TEACHER: lambda: apart.teach(held[0], crops),
        STUDENT: lambda: apart.learn(held[0], crops, key, below),
        HEAD: lambda: apart.judge(held[0], teacher, seen),
        UPDATE: renew,
        FORWARD: lambda: apart.look(held[0].student["backbone"], held[0], crops, key),
    }
    return works, {AUGMENT: 0.0, TEACHER: teach, STUDENT: 3 * look, HEAD: rest, UPDATE: 0.0, FORWARD: look}


def _peak(step: Compiled, state: TrainState, images: Array, now: StepValues) -> tuple[TrainState, str]:
    """The state after three steps, and the most memory that was taken until then."""
    on_cpu, before = jax.default_backend() == "cpu", resident("VmRSS") / 1e9
    if on_cpu:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        state, _ = jax.block_until_ready(step(state, images, now))
    if on_cpu:
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
    images, needed, middle = config.settings.batch, flops(config.settings, config.model), statistics.median(seconds)
    kind, spread = jax.devices()[0].device_kind, f"{images / max(seconds):,.1f} to {images / min(seconds):,.1f}"
    used = utilization(needed / middle, kind, jax.device_count())
    share = f"the peak of {kind} is not known" if used is None else f"{used:.1%}"
    return [
        f"| whole step | {images / middle:,.1f} images/s ({spread}), {1e3 * middle:,.1f} ms |",
        f"| operations by formula | {needed / 1e9:,.1f} GFLOP, {needed / middle / 1e9:,.0f} GFLOP/s |",
        f"| share of the devices' peak in 16 bits (MFU) | {share} |",
    ]


def _breakdown(seconds: Mapping[str, list[float]], needed: Mapping[str, float]) -> list[str]:
    total = sum(statistics.median(each) for name, each in seconds.items() if name != FORWARD)
    lines = ["| part | ms (median) | range | of the sum | GFLOP | GFLOP/s |", "|---|---|---|---|---|---|"]
    for name, each in seconds.items():
        middle, count = statistics.median(each), needed[name] / 1e9
        share = "" if name == FORWARD else f"{middle / total:.1%}"
        speeds = f"{count:,.1f} | {count / middle:,.0f}" if count else " | "
        spread = f"{1e3 * min(each):,.1f} to {1e3 * max(each):,.1f}"
        lines.append(f"| {name} | {1e3 * middle:,.1f} | {spread} | {share} | {speeds} |")
    return lines


if __name__ == "__main__":
    command(main)
