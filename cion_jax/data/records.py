"""Reading a split: any image by its number, or all of them in order, with every checksum checked."""

from collections.abc import Iterator
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from cion_jax.config import Kernel
from cion_jax.data import adopted, dataset, example, images, tfrecord
from cion_jax.data.example import ImageRecord
from cion_jax.data.files import Folder, is_remote, located
from cion_jax.data.labels import FIELDS
from cion_jax.data.shards import CHUNK_BYTES, Bytes, ChunkCache, Shards, chunk_starts
from cion_jax.errors import UserError


class DamagedRecordError(UserError):
    """A record that cannot be used; the message names shard and offset."""


class Records:
    """One split of a dataset, in a folder or an object store.

    Safe to share between threads, and to pickle to another process.
    """

    def __init__(self, folder: Folder, split: str = "train", checked: bool = True):
        """Open a split. `checked` refuses an index that is not the one which the card describes."""
        self.folder = located(folder)
        self.split = split
        splits, _ = dataset.read_card(self.folder)
        if split not in splits:
            raise UserError(f"{folder}: no split {split!r}; it has {', '.join(splits)}")
        self.card = splits[split]
        self.index = dataset.read_index(self.folder, split)
        for fault in dataset.faults(self.index, self.card) if checked else ():
            path = dataset.index_path(self.folder, split)
            raise UserError(f"{path}: {fault}; see `cion data check`, and copy or write the dataset again")
        self._paths = dataset.shard_paths(self.folder, split, self.card)
        self.shards: Bytes = Shards(self._paths)

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple:
        return Records, (self.folder, self.split)  # descriptors and memory maps belong to one process

    def over(self, shards: Bytes) -> "Records":
        """The same records, with their bytes from somewhere else, such as chunks of the same shards."""
        other = Records.__new__(Records)  # a copy as pickle makes it would open everything again
        other.__dict__.update(self.__dict__, shards=shards)
        return other

    def in_order(self) -> "Records":
        """The same records for a reader who goes through them in order: a store is read in chunks, ahead of use."""
        if not is_remote(self.folder):
            return self
        return self.over(ChunkCache(self.shards, self.index, chunk_starts(self.index), room=32 * CHUNK_BYTES, ahead=4))

    def payload(self, number: SupportsIndex) -> bytes:
        """The payload of an image's record, with both checksums and that of the index compared."""
        row = self.index[number]
        size = int(row["length"]) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
        try:
            payload, crc = tfrecord.unframe(self.shards.read(int(row["shard"]), int(row["offset"]), size))
        except (tfrecord.FrameError, OSError) as error:
            raise self._damaged(number, str(error)) from None
        if crc != row["crc"]:
            raise self._damaged(number, "this is not the record that the index knows")
        return payload

    def __getitem__(self, number: SupportsIndex) -> ImageRecord:
        """The record of an image, by its number in the index."""
        payload = self.payload(number)
        try:
            features = self.card.features
            return adopted.decode(payload, features) if features else example.decode(payload)
        except ValueError as error:
            raise self._damaged(number, str(error)) from None

    def __iter__(self) -> Iterator[ImageRecord]:
        """All records in order; reads are sequential on disk."""
        return (self[number] for number in range(len(self)))

    def pixels(self, number: SupportsIndex) -> np.ndarray:
        """The decoded image, uint8 (height, width, 3)."""
        try:
            return images.decode(self[number].image)
        except images.ImageError as error:
            raise self._damaged(number, str(error)) from None

    def pixels_into(self, out: np.ndarray, number: SupportsIndex, kernel: Kernel = "bilinear") -> None:
        """The decoded image, resized to an array's height and width and written there: the way batches are filled."""
        payload = self.payload(number)
        try:
            images.decode_into(out, example.image_of(payload, self.card.features.get("image", "image")), kernel)
        except ValueError as error:
            raise self._damaged(number, str(error)) from None

    def disagreements(self, number: SupportsIndex, record: ImageRecord) -> list[str]:
        """The names of those labels that a record and its row of the index tell differently."""
        return [name for name in FIELDS if getattr(record, name) != self.index[number][name]]

    def shard_path(self, shard: int) -> Path:
        """The file of a shard."""
        return self._paths[shard]

    def where(self, number: SupportsIndex) -> str:
        """Where the record of an image stands, for messages."""
        row = self.index[number]
        shard = int(row["shard"])
        is_there = 0 <= shard < len(self._paths)  # an index may be damaged
        place = str(self._paths[shard]) if is_there else f"{self.folder}, shard {shard}"
        return f"{place} at byte {row['offset']} (image {number} of split {self.split})"

    def _damaged(self, number: SupportsIndex, why: str) -> DamagedRecordError:
        return DamagedRecordError(f"{self.where(number)}: {why}")
