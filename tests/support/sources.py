"""Small sources of images for the tests of records, and a way to see what a folder holds."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cion_jax.data import images
from cion_jax.data.labels import LABELS


@dataclass(frozen=True)
class Blocks:
    """Images of random coloured blocks: five to a tracklet, two tracklets to a video."""

    count: int
    first: int = 0
    size: tuple[int, int] = (32, 16)
    damaged: tuple[int, ...] = ()
    seed: int = 0

    @property
    def labels(self) -> np.ndarray:
        number = np.arange(self.first, self.first + self.count)
        rows = np.empty(self.count, LABELS)
        columns = (number // 10, number // 5, number, number // 10 % 3, np.where(number % 7 == 6, -1, number // 15))
        for name, values in zip(LABELS.names, columns, strict=True):
            rows[name] = values
        return rows

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, stop: int) -> "Blocks":
        return replace(self, first=self.first + start, count=stop - start)

    def pixels(self, number: int) -> np.ndarray:
        height, width = self.size
        blocks = np.random.default_rng([self.seed, number]).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        return blocks.repeat(8, 0).repeat(8, 1)

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        for number in range(self.first, self.first + self.count):
            data = images.encode_jpeg(self.pixels(number))
            yield data[:-20] if number in self.damaged else data, f"blocks/{number}.jpg"

    def fingerprint(self) -> str:
        return repr(self)


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
