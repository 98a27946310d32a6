"""What denoising costs as it grows: time, memory, and how much of the time the programs on the devices take.

    python -m experiments.benchmarks.denoise

For each size a world is drawn and written to a file, and a process of its own reads it and is measured, from the
arrays to labels that were checked, compiling included. Memory is the largest that this process ever had, features, JAX
and all. Then exponents are fitted, and what a larger job would need is worked out on paper.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cion_jax.config import Denoising
from cion_jax.denoise import near, single
from cion_jax.denoise.denoise import denoise
from cion_jax.evaluate.clustering_metrics import agreement
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident
from experiments.feature_world import FeatureWorld, draw

#: Images of a person and of a video in the worlds that are drawn, and of a walk; of a tracklet they are 20.
PERSON_IMAGES = 104
VIDEO_IMAGES = 700
WALK_IMAGES = 26.5
#: Exponents are fitted from this size on. Below, compiling and JAX itself are most of what is measured.
FITTED_FROM = 90_000


class Cost(NamedTuple):
    """What one size took."""

    images: int
    tracklets: int
    seconds: float
    devices: float
    """Seconds of them in programs on the devices."""
    memory: float
    """The largest, in GiB."""
    f1: float


def main(
    images: tuple[int, ...] = (10_000, 30_000, 100_000, 300_000, 1_000_000),
    widths: tuple[int, ...] = (128, 512),
    within: int = 20_000,
) -> None:
    """Print a table, exponents, and what a larger job needs.

    Args:
        images: About how many there are.
        widths: Dimensions of their features.
        within: The range of the third level.
    """
    print(environment("jax", "numpy"))
    for width in widths:
        print(f"\n{width} dimensions\n")
        print("| images | tracklets | seconds | on devices | GiB | F1 |\n|---|---|---|---|---|---|")
        costs = [print_cost(count, width, within) for count in images]
        large = [cost for cost in costs if cost.images >= FITTED_FROM]
        if len(large) > 1:
            exponents = (
                f"time ~ images^{exponent(large, 'seconds'):.2f}, memory ~ images^{exponent(large, 'memory'):.2f}"
            )
            print(f"\nFrom {large[0].images:,} images on: {exponents}")
    print(f"\n10,000,000 images of 400,000 tracklets, on paper:\n\n{on_paper(10_000_000, 400_000)}")


def print_cost(count: int, width: int, within: int) -> Cost:
    """Measure a size and print its row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "world.npz")
        in_own_process(write_world, path, count, width)
        cost: Cost = in_own_process(measure, path, within)
    share = f"{cost.devices / cost.seconds:.0%}"
    print(
        f"| {cost.images:,} | {cost.tracklets:,} | {cost.seconds:,.1f} | {share} | {cost.memory:.1f} | {cost.f1:.3f} |",
        flush=True,
    )
    return cost


def exponent(costs: list[Cost], name: str) -> float:
    """The power of the number of images with which a cost grows: the slope in logarithms."""
    images = np.log([cost.images for cost in costs])
    values = np.log([getattr(cost, name) for cost in costs])
    return np.polyfit(images, values, 1)[0]


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do it in a process whose memory holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def write_world(path: Path, count: int, width: int) -> None:
    """Draw a world of about so many images."""
    people = max(count // PERSON_IMAGES, 2)
    videos = max(count // VIDEO_IMAGES, 2)
    np.savez(path, **draw(FeatureWorld(people, videos, length=WALK_IMAGES, width=width))._asdict())


def measure(path: Path, within: int) -> Cost:
    """Denoise what is in the file."""
    with np.load(path) as arrays:
        features, video, tracklet, frame, truth = (
            arrays[name] for name in ("features", "video", "tracklet", "frame", "identity")
        )
    spent: list[float] = []
    near.of_tiles = timed(near.of_tiles, spent)  # type: ignore[assignment]
    single.drop = timed(single.drop, spent)  # type: ignore[assignment]
    began = time.perf_counter()
    result = denoise(features, video, tracklet, frame, Denoising(range=within))
    seconds = time.perf_counter() - began
    memory = resident("VmHWM") / 2**30
    f1 = agreement(result.labels, truth).f1
    return Cost(len(video), int(tracklet.max()) + 1, seconds, sum(spent), memory, f1)


def timed(program: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The program, which now waits for its result and notes the seconds.

    In earnest nobody waits, so the share of the devices is at most this large.
    """

    def run(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = jax.block_until_ready(program(*arguments))
        spent.append(time.perf_counter() - began)
        return result

    return run


def on_paper(images: int, tracklets: int, length: int = 32) -> str:
    """Floating-point operations and bytes, from the shapes of what is multiplied."""
    lines = ["| | width | FLOP | bytes to the device | bytes from it |", "|---|---|---|---|---|"]
    for width in (128, 512, 2048):
        lines.append(
            f"| level 1, tracklets padded to {length} | {width} | {2 * images * length * width:.1e} "
            f"| {4 * images * width:.1e} | {images:.1e} |"
        )
        for name, others in (("range 20,000", 20_000), ("range all", tracklets / 2)):
            pairs = tracklets * others
            lines.append(
                f"| similarities of tracklets, once, {name} | {width} | {2 * pairs * width:.1e} "
                f"| {4 * tracklets * width:.1e} | {pairs / 8:.1e} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    command(main)
