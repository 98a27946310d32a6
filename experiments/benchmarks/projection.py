"""How long would the paper's whole job take? On paper: from operations, bytes, and the devices' data sheets.

python -m experiments.benchmarks.projection

Nothing here is measured. MFU is the share of a device's peak in 16 bits that a training uses; the published five days
on eight V100 are put into the same terms. No step is faster than its operations at the peak, nor than its bytes at the
memory's rate. Bytes are an estimate from shapes: what the backward pass holds of an image
(experiments.benchmarks.memory) is written and read once, and so is its gradient; the teacher writes and reads its
share of the same. Neither crops in the making nor parameters are counted.

The last table is of the programs that XLA made for such devices (experiments.benchmarks.compiled): for TPUs by the
compiler's estimate, kernels one after the other and exchanges not counted; for GPUs a bound, each kernel at its
roofline.
"""

import functools
import math

from tyro.conf import Positional

from cion_jax.config import Pretraining
from cion_jax.pretrain.flops import step_flops
from cion_jax.programs.account import table
from cion_jax.programs.devices import peak_flops
from cion_jax.recipes import recipe
from cion_jax.run.pretraining import model_of
from experiments.benchmarks.command import command
from experiments.benchmarks.compiled import Row, kept
from experiments.benchmarks.memory import needs

#: What is asked about: a device's kind, and how many.
FLEETS = (("NVIDIA H200", 1), ("NVIDIA H200", 8), ("TPU v5e", 16))
SHARES = (0.2, 0.3, 0.4)
PUBLISHED = ("Tesla V100-SXM2-32GB", 8, 5 * 24.0)
#: Bytes a second that a device reads and writes, from the makers' data sheets.
BANDWIDTHS = {"NVIDIA H200": 4.8e12, "TPU v5e": 819e9}
#: What is known of like work elsewhere: share of the peak that it uses.
ELSEWHERE = (
    ("MLPerf's ResNet-50 on H100, derived from its time", 0.15),
    ("DINOv3's ViT-L on H100", 0.26),
    ("big_vision's ViT-S/16 on TPU v3", 0.28),
)
ROWS = ("resnet50_ibn", "vit_small", "swin_tiny", "convnext_tiny", "ghostnet_1_0")


def main(names: Positional[tuple[str, ...]] = ROWS, images: int = 3_900_000, epochs: int = 100) -> None:
    """Print two Markdown tables: hours, and what operations and bytes allow at the most.

    Args:
        names: Rows, or files of settings; hours are those of the first.
        images: In the training set; each is seen once an epoch, or a little more often.
        epochs: Passes over it.
    """
    row = recipe(names[0])
    each = step_flops(row, model_of(row)) / row.batch
    seen = images * epochs
    print(f"{names[0]}: {each / 1e9:,.0f} GFLOP an image ({2 + row.crops.local_crops} crops)")
    print(f"{images:,} images, {epochs} epochs")
    print("COMPUTED, not measured: hours, and images a second that the hosts would have to decode\n")
    print("| MFU | " + " | ".join(f"{count} x {kind}" for kind, count in FLEETS) + " |")
    print("|---|" + "---|" * len(FLEETS))
    for share in SHARES:
        print(_hours(f"{share:.0%}", seen, [count * _peak(kind) * share / each for kind, count in FLEETS]))
    print(_hours("the most, as estimated below", seen, [count * limit(row, kind)[0] for kind, count in FLEETS]))
    kind, count, hours = PUBLISHED
    used = seen * each / (hours * 3600 * count * _peak(kind))
    speed = seen / hours / 3600
    print(f"\nThe published {hours:.0f} hours on {count} x V100 are", end=" ")
    print(f"{speed:,.0f} images a second, an MFU of {used:.0%}.\n")
    print("ESTIMATED, not measured: what one device could do at the most\n")
    head = " | ".join(f"{kind}: images/s | MFU | bound by" for kind in BANDWIDTHS)
    print(f"| | GFLOP an image | MB moved an image | {head} |\n|---|---|---|{'---|' * 3 * len(BANDWIDTHS)}")
    for name in names:
        row = recipe(name)
        each = step_flops(row, model_of(row)) / row.batch
        cells = [name, f"{each / 1e9:,.1f}", f"{moved(row) / 1e6:,.0f}"]
        for kind in BANDWIDTHS:
            speed, bound = limit(row, kind)
            cells += [f"{speed:,.0f}", f"{speed * each / _peak(kind):.0%}", bound]
        print(f"| {' | '.join(cells)} |", flush=True)
    print("\nCOMPILED, not run: the same job by the programs that XLA makes\n")
    title = "|devices|images/s a device|MFU|hours on 16|on 64|on 256|what it is"
    rows = [row for row in kept() if row.name in names and row.label == "now"]
    print("\n".join(table(title, [_of_program(row, seen) for row in rows])))
    print("\nElsewhere: " + "; ".join(f"{work} {share:.0%}" for work, share in ELSEWHERE) + " of the peak.")


def _of_program(row: Row, seen: int) -> tuple[str, ...]:
    speed = row.images / row.seconds
    hours = [f"{seen / (count * speed) / 3600:,.1f}" for count in (16, 64, 256)]
    kind = "the compiler's estimate" if row.is_estimated else "a bound"
    return row.name, row.devices, f"{speed:,.0f}", f"{row.least['operations'] / row.seconds:.0%}", *hours, kind


def _hours(label: str, seen: int, speeds: list[float]) -> str:
    cells = [f"{seen / speed / 3600:,.1f} h, {speed:,.0f}/s" for speed in speeds]
    return f"| {label} | {' | '.join(cells)} |"


@functools.cache
def moved(row: Pretraining) -> float:
    """Bytes that an image moves, at the least."""
    crops = row.crops
    global_pixels = 2 * math.prod(crops.global_size)
    teacher = global_pixels / (global_pixels + crops.local_crops * math.prod(crops.local_size))
    return needs(row)[row.remat].image * (4 + 2 * teacher)


def limit(row: Pretraining, kind: str) -> tuple[float, str]:
    """Images a second that a device could do at the most, and what sets the limit."""
    needed = {
        "operations": step_flops(row, model_of(row)) / row.batch / _peak(kind),
        "bytes": moved(row) / BANDWIDTHS[kind],
    }
    bound = max(needed, key=needed.__getitem__)
    return 1 / needed[bound], bound


def _peak(kind: str) -> float:
    peak = peak_flops(kind)
    assert peak is not None, kind
    return peak


if __name__ == "__main__":
    command(main)
