"""What does a store cost that answers late? Reading each image by itself, and in chunks.

python -m experiments.benchmarks.store

The store is simulated: the shards lie on this disk, and whoever reads from them waits first.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from cion_jax.config import Reading, World, Writing
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import Bytes, chunk_starts
from cion_jax.data.writer import write_dataset
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, rates, table
from tfrecords_tools.world import build


class Slow:
    """Shards whose every read begins late; it counts the reads."""

    def __init__(self, shards: Bytes, seconds: float):
        self._shards = shards
        self._seconds = seconds
        self.sizes: list[int] = []
        """Bytes of each read."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard, late."""
        self.sizes.append(size)
        time.sleep(self._seconds)
        return self._shards.read(shard, offset, size)


def main(images: int = 12000, milliseconds: float = 30, batches: int = 24, window: int = 32, rounds: int = 5) -> None:
    """Read the first batches of an epoch, 16 tracklets x 4 images each, in turn from the disk and from the store.

    Args:
        images: About how many images of 256x128 to draw.
        milliseconds: That the store takes to answer.
        batches: To read in a turn; of the one that reads each image by itself, a twelfth.
        window: Batches that the windowed shuffle mixes.
        rounds: How often each has its turn; the printed figures are medians.
    """
    world = World(
        identities=images // 48, videos=images // 200, height=256, width=128, test_identities=2, distractors=0
    )
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "world", {"train": build(world)["train"]}, Writing(images_per_shard=4096))
        disk = Records(Path(folder) / "world")
        slow, counted = (Slow(disk.shards, milliseconds / 1000) for _ in range(2))
        labels = np.asarray(disk.index["tracklet"])
        plain = PKSampler(labels, 16, 4)
        windowed = PKSampler(labels, 16, 4, shuffle=WindowedShuffle(chunk_starts(disk.index, labels), window))
        read: dict[str, Callable[[], int]] = {
            "store, in chunks": partial(_read, disk.over(slow), windowed, batches),
            "store, each image by itself": partial(_read, disk.over(slow), plain, max(1, batches // 12)),
            "disk, each image by itself": partial(_read, disk, plain, batches),
            "disk, in chunks": partial(_read, disk, windowed, batches),
        }
        speeds = rates(read, rounds)
        drawn = _read(disk.over(counted), windowed, windowed.batches)
    print(environment("numpy", "grain", "simplejpeg"))
    print(f"{len(disk):,} images of 256x128, {disk.card.bytes / 1e6:.0f} MB; a store that answers after", end=" ")
    print(f"{milliseconds:.0f} ms\n")
    print(table(speeds, "images/s"))
    requests = len(counted.sizes)
    size = sum(counted.sizes) / 1e6
    print(f"\nAn epoch of {drawn:,} images in chunks: {requests:,} requests, {size:.0f} MB")


def _read(records: Records, sampler: PKSampler, batches: int) -> int:
    read = host_batches(records, sampler, Reading(), epochs=1)
    return sum(len(batch["image"]) for batch in islice(read, batches))


if __name__ == "__main__":
    command(main)
