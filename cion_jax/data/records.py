"""Reading a split: any image by its number, or all of them in order, with every checksum checked."""

import os
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from cion_jax.data import dataset, example, images, tfrecord
from cion_jax.data.example import ImageRecord
from cion_jax.errors import UserError


class DamagedRecordError(UserError):
    """A record that cannot be used; the message names shard and offset."""


class Records:
    """One split of a dataset folder. Safe to share between threads, and to pickle to another process."""

    def __init__(self, folder: Path | str, split: str = "train"):
        self.folder, self.split = Path(folder), split
        splits, _ = dataset.read_card(self.folder)
        if split not in splits:
            raise UserError(f"{folder}: no split {split!r}; it has {', '.join(splits)}")
        self.card = splits[split]
        self.index = dataset.read_index(self.folder, split)
        if len(self.index) != self.card.images:
            path = dataset.index_path(self.folder, split)
            raise UserError(f"{path}: {len(self.index)} rows for {self.card.images} images; write the dataset again")
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple:
        return Records, (self.folder, self.split)  # descriptors and memory maps belong to one process

    def __getitem__(self, number: int) -> ImageRecord:
        """The record of an image, by its number in the index."""
        row = self.index[number]
        size = int(row["length"]) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
        try:
            data = os.pread(self._files[row["shard"]], size, int(row["offset"]))
            return example.decode(tfrecord.unframe(data))
        except (OSError, ValueError) as error:
            raise self._damaged(number, str(error)) from None

    def __iter__(self) -> Iterator[ImageRecord]:
        """All records in order; reads are sequential on disk."""
        return (self[number] for number in range(len(self)))

    def pixels(self, number: int) -> np.ndarray:
        """The decoded image, uint8 (height, width, 3)."""
        try:
            return images.decode(self[number].image)
        except images.ImageError as error:
            raise self._damaged(number, str(error)) from None

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return dataset.shard_path(self.folder, self.split, shard, len(self.card.shards))

    def _damaged(self, number: int, why: str) -> DamagedRecordError:
        row = self.index[number]
        path = self.shard_path(row["shard"])
        return DamagedRecordError(f"{path} at byte {row['offset']} (image {number}): {why}; see `cion data check`")

    @property
    def _files(self) -> list[int]:
        with self._opening:
            return self._open

    @cached_property
    def _open(self) -> list[int]:
        _allow_open_files(len(self.card.shards) + 64)
        try:
            return [os.open(self.shard_path(n), os.O_RDONLY | os.O_CLOEXEC) for n in range(len(self.card.shards))]
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}; see `cion data check {self.folder}`") from None

    def __del__(self) -> None:
        for file in self.__dict__.get("_open", ()):
            os.close(file)


def _allow_open_files(wanted: int) -> None:
    """Every shard stays open while it is read; the soft limit on open files is often far below the hard one."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard or (soft < wanted and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
