"""How fast is a step of training beside the same step in PyTorch, on the same device?

pip install -e '.[torch,cuda13]' && python -m experiments.benchmarks.gpu     # five rows, some minutes each
python -m experiments.benchmarks.gpu vit_small --batch 96

Both begin with the same weights and do the same mathematics (tests/test_torch_step.py). They take turns on one device,
of whose memory each may have 45%, in two contests: on crops that are on the device already, and from decoded images on
the host, of which ours makes crops on the device, while PyTorch is fed by the published pipeline, Pillow in as many
processes as there are cores. A turn begins with nothing made ahead. A second table holds our step and its parts
against the device's ceilings, as `experiments.benchmarks.roofline` does.
"""

import gc
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.models.precision import dtype_of
from cion_jax.pretrain.flops import step_flops
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import TrainState, backbone_variables
from cion_jax.pretrain.step import Metrics, StepConfig, Views, gradients, update
from cion_jax.programs.devices import utilization
from cion_jax.run.sharding import replicated, shardings_of
from cion_jax.weights.file import Weights, prefixed
from experiments.benchmarks.command import command
from experiments.benchmarks.memory import STEP
from experiments.benchmarks.options import DEFAULTS, StepOptions
from experiments.benchmarks.roofline import report
from experiments.benchmarks.step import VALUES, inputs, jitted_step, step_config
from experiments.benchmarks.timing import environment, rates
from experiments.benchmarks.torch_step import Step, network, published_views

ROWS = ("resnet50_ibn", "vit_small", "swin_tiny", "convnext_tiny", "ghostnet_1_0")
#: Of the device's memory, what each of the two may have.
SHARE = 0.45


def main(names: Positional[tuple[str, ...]] = ROWS, step: StepOptions = DEFAULTS) -> None:
    """Print Markdown tables: both contests of each row, then how far our step is from the device's ceilings.

    On a GPU a step has the row's batch by default. It is halved, to a multiple of 24, as long as one of the two runs
    out of memory.

    Args:
        names: Rows, or files of settings, of backbones that `experiments.benchmarks.torch_backbones` has.
        step: Its size, and how often it runs.
    """
    print(f"{environment('jax', 'jaxlib', 'torch', 'pillow')}, {alone(_device)}; on a CPU these figures say little\n")
    side = "{0}, ms | {0}, images/s | {0}, MFU | {0}, GB"
    print(f"| row | batch | from | {side.format('ours')} | {side.format('PyTorch')} | PyTorch by | ours / PyTorch |")
    print("|" + "---|" * 13, flush=True)
    contested = [alone(contest, name, step) for name in names]
    print(flush=True)
    for settings in contested:
        alone(report, settings, step)


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, made in a process of its own, in which peaks of memory start anew."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _device() -> str:
    return jax.devices()[0].device_kind


def contest(name: str, options: StepOptions) -> Pretraining:
    """Print a line for each contest of a row; its settings, with the batch that both had room for."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(SHARE))  # JAX reads it when it first needs a device
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(SHARE)
        torch.backends.cudnn.benchmark = True
        is_exact = options.settings(name).precision == "float32"
        torch.set_float32_matmul_precision("highest" if is_exact else "high")
        torch.backends.cudnn.allow_tf32 = not is_exact
    ours, theirs = rivals(replace(options.settings(name), model_axis=1), device)
    settings = ours.config.settings
    times = options.repeats()
    images = np.random.default_rng(0).integers(0, 256, (settings.batch, *settings.image_size, 3), np.uint8)
    cores = len(os.sched_getaffinity(0))
    pillow_crops = published_views(images, settings.crops, times, cores, like=theirs.crops[0])
    contests: dict[str, tuple[Callable[[], int], Callable[[], Iterable[Any]]]] = {
        "crops": (
            partial(ours.turn, ours.on_crops, ours.shared(theirs.crops), times),
            partial(repeat, theirs.crops, times),
        ),
        "images": (partial(ours.turn, ours.on_images, images[None], times), pillow_crops),
    }
    for source, (our_turn, views) in contests.items():
        speeds = rates({"ours": our_turn, "PyTorch": partial(theirs.turn, views)}, options.rounds)
        peaks = ours.peak(), theirs.peak()
        print(f"| {name} | {settings.batch} | {source} | {_cells(ours.config, speeds, peaks, theirs.by)} |", flush=True)
    return settings


def rivals(settings: Pretraining, device: Any) -> tuple["Ours", "Theirs"]:
    """Both sides, warmed up, with the batch halved as long as one of them runs out of memory."""
    while True:
        try:
            return _warm(settings, device)
        except (torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
            is_full = isinstance(error, torch.OutOfMemoryError) or "RESOURCE_EXHAUSTED" in str(error)
            if not is_full or settings.batch <= STEP:
                raise
        settings = replace(settings, batch=max(STEP, settings.batch // 2 // STEP * STEP))
        gc.collect()
        torch.cuda.empty_cache()


def _warm(settings: Pretraining, device: Any) -> tuple["Ours", "Theirs"]:
    ours = Ours(settings)
    theirs = Theirs(ours.config, ours.weights(), device)  # eager at first, which soon says if there is no room
    ours.turn(ours.on_crops, ours.shared(theirs.crops), 1)
    theirs.compile()
    return ours, theirs


class Ours:
    """Our step, from crops or from images, and the state that it moves on."""

    def __init__(self, settings: Pretraining) -> None:
        self.config = step_config(settings, 1)
        self.state, _, self._values = inputs(self.config)
        places = shardings_of(self.state), replicated(self.config.mesh)
        self.on_crops: Any = jax.jit(partial(_step_on_crops, self.config), donate_argnums=0, out_shardings=places)
        self.on_images: Any = jitted_step(self.config, self.state)

    def weights(self) -> dict[str, Any]:
        """The student's, as PyTorch names them."""
        student = self.state.student
        body = backbone_variables(student, self.state.batch_stats["student"])
        exported = prefixed(Weights(self.config.model, body, {"params": student["head"]}), "backbone.", "head.")
        return {key: torch.from_numpy(np.array(value)) for key, value in exported.items()}

    def shared(self, crops: tuple[Any, ...]) -> Views:
        """PyTorch's crops, in the same memory."""
        global_crops, local_crops = map(jnp.from_dlpack, crops)
        return global_crops, local_crops

    def turn(self, step: Any, data: Any, times: int) -> int:
        """Images that so many steps have seen."""
        for _ in range(times):
            self.state, metrics = step(self.state, data, self._values)
        jax.block_until_ready(metrics)
        return times * self.config.settings.batch

    def peak(self) -> float | None:
        """The most bytes that were in use on the device."""
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _step_on_crops(
    config: StepConfig, state: TrainState, crops: Views, values: StepValues
) -> tuple[TrainState, Metrics]:
    def views(part: Views, number: Array) -> tuple[Views, Array]:
        return part, jax.random.fold_in(jax.random.key(config.settings.seed), state.step)

    one_part = jax.tree.map(lambda crops: crops[None], crops)
    grads, batch_stats, center, metrics = gradients(config, state, one_part, views)
    return update(config.settings.optimization, state, grads, batch_stats, center, values), metrics


class Theirs:
    """PyTorch's step, and crops of noise for both sides."""

    def __init__(self, config: StepConfig, weights: dict[str, Any], device: Any) -> None:
        self._config = config
        self._weights = weights
        self._device = device
        settings, crops = config.settings, config.settings.crops
        sizes = (2, *crops.global_size), (crops.local_crops, *crops.local_size)
        options = {"device": device, "dtype": getattr(torch, dtype_of(settings.precision).name)}
        self.crops = tuple(torch.randn(settings.batch, *size, 3, **options) for size in sizes)
        self.by = "eager"
        self._step = self._warm_step(compiled=False)

    def _warm_step(self, compiled: bool) -> Step:
        student = network(self._config.settings)
        student.load_state_dict(self._weights)
        step = Step(student.to(self._device), self._config.settings, self._config.instances, compiled)
        step(self.crops, VALUES)
        return step

    def compile(self) -> None:
        """Go on by torch.compile, on a GPU and if it works there."""
        if self._device.type == "cuda":
            del self._step
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            try:
                self._step = self._warm_step(compiled=True)
                self.by = "torch.compile"
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._step = self._warm_step(compiled=False)
                self.by = f"eager, after {type(error).__name__}"

    def turn(self, views: Callable[[], Iterable[Any]]) -> int:
        """Images that were seen in steps on these crops."""
        images = 0
        for crops in views():
            self._step(crops, VALUES)
            images += len(crops[0])
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return images

    def peak(self) -> float | None:
        """The most bytes that were in use on the device."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None


def _cells(config: StepConfig, speeds: dict[str, list[float]], peaks: tuple[float | None, ...], by: str) -> str:
    """Milliseconds of a step, images/s, MFU and peak of each side, and the median and range of the ratios by round."""
    settings = config.settings
    image_flop = step_flops(settings, config.model) / settings.batch
    cells = []
    for side, peak in zip(speeds.values(), peaks, strict=True):
        speed = median(side)
        used = utilization(image_flop * speed, jax.devices()[0].device_kind, 1)
        cells += [f"{1e3 * settings.batch / speed:,.1f}", f"{speed:,.1f}", "?" if used is None else f"{used:.1%}"]
        cells.append("?" if peak is None else f"{peak / 1e9:.1f}")
    ratios = [ours / theirs for ours, theirs in zip(*speeds.values(), strict=True)]
    return " | ".join([*cells, by, f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])


if __name__ == "__main__":
    command(main)
