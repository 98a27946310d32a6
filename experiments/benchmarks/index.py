"""What does the index of a large dataset cost: to open, to take the labels from, to look images up in, to check?

python -m experiments.benchmarks.index
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.data.dataset import INDEX, fingerprint, index_path, read_index
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident

#: Rows that are looked up one by one.
LOOKUPS = 100_000


def main(images: int = 10_000_000) -> None:
    """Write an index of random content, and time what readers do with it; the file is in the page cache.

    Args:
        images: Rows of the index.
    """
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = index_path(Path(folder), "train")
        written = np.lib.format.open_memmap(path, "w+", INDEX, (images,))
        for name in ("offset", "length", "crc", "tracklet"):
            written[name] = random.integers(0, 1 << 31, images)
        del written
        print(f"{environment('numpy')}\n{images:,} images, {path.stat().st_size / 1e6:,.0f} MB\n")
        print("| | seconds | resident memory it adds, the mapped file in it, GB |\n|---|---|---|")
        index = _timed("open it", lambda: read_index(Path(folder), "train"))
        _timed("take the labels", lambda: np.array(index["tracklet"], np.int64))
        numbers = random.integers(0, images, LOOKUPS)
        _timed(f"look up {LOOKUPS:,} images, one by one", lambda: [index[number]["offset"] for number in numbers])
        _timed("digest all of it", lambda: fingerprint(index))


def _timed(what: str, work: Callable[[], Any]) -> Any:
    before = resident("VmRSS")
    began = time.perf_counter()
    result = work()
    print(f"| {what} | {time.perf_counter() - began:.3f} | {(resident('VmRSS') - before) / 1e9:.2f} |")
    return result


if __name__ == "__main__":
    command(main)
