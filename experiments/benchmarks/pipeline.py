"""Does the host's pipeline grow with its cores? Images a second for 1, 2, ... of those that there are.

python -m experiments.benchmarks.pipeline
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from cion_jax.config import Reading, World, Writing
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, rates
from tfrecords_tools import commands as data


def main(rounds: int = 7) -> None:
    """Draw a world, and read an epoch of it in the P x K order, on more and more cores, which take turns.

    Args:
        rounds: How often each has its turn; the printed figures are medians.
    """
    allowed = sorted(os.sched_getaffinity(0))
    counts = [1 << power for power in range(len(allowed).bit_length()) if 1 << power <= len(allowed)]
    with tempfile.TemporaryDirectory() as folder:
        world = World(height=256, width=128, test_identities=2, distractors=0)
        data.synth(Path(folder, "world"), world=world, writing=Writing(images_per_shard=1024))
        records = Records(Path(folder, "world"))
        sampler = PKSampler(records.index["tracklet"], 16, 4)
        read: dict[str, Callable[[], int]] = {
            str(count): partial(_epoch, records, sampler, allowed[:count]) for count in counts
        }
        speeds = rates(read, rounds)
    print(f"\n{environment('numpy', 'grain', 'simplejpeg')}")
    print(f"{len(records):,} images of 256x128, {records.card.bytes / len(records) / 1e3:.1f} kB each\n")
    print("| cores | images/s (median) | range | an image/s a core, to one core |\n|---|---|---|---|")
    for name, values in speeds.items():
        scaling = median(a / b for a, b in zip(values, speeds["1"], strict=True)) / int(name)
        print(f"| {name} | {median(values):,.0f} | {min(values):,.0f} to {max(values):,.0f} | {scaling:.2f} |")


def _epoch(records: Records, sampler: PKSampler, cores: list[int]) -> int:
    """Read an epoch with the threads that so many cores get."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        return sum(len(batch["image"]) for batch in host_batches(records, sampler, Reading(), epochs=1))
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    command(main)
