"""The bytes of a split's shards: one record at a time, or in long chunks that are read ahead of their use."""

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from cion_jax.data import tfrecord
from cion_jax.data.files import is_remote, read_range
from cion_jax.errors import UserError
from cion_jax.untrusted import open_file

#: Bytes of a chunk: so many that a store's time to answer hardly counts beside its time to send.
CHUNK_BYTES = 8 << 20
#: Requests at a time.
_AT_ONCE = 8


class Bytes(Protocol):
    """What records are cut from."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard, from an offset on; fewer where it ends before."""
        ...


class Shards:
    """The shard files, each read at any place. Safe to share between threads."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self._remote = any(map(is_remote, paths))
        self._opening = threading.Lock()
        self._open: dict[int, int] = {}
        if not self._remote:
            _allow_open_files(len(paths) + 64)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard; on a disk every shard stays open."""
        if not self._remote:
            return os.pread(self._file(shard), size, offset)
        try:
            return read_range(self._paths[shard], offset, size)
        except FileNotFoundError:
            raise UserError(f"{self._paths[shard]}: there is no such file; copy the dataset again") from None

    def _file(self, shard: int) -> int:
        with self._opening:
            if shard not in self._open:
                with open_file(self._paths[shard], "see `cion data check`") as file:
                    self._open[shard] = os.dup(file.fileno())
            return self._open[shard]

    def __del__(self) -> None:
        for file in self.__dict__.get("_open", {}).values():
            os.close(file)


def chunk_starts(index: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Chunks of about `CHUNK_BYTES`, none over two shards: the number of each one's first image.

    With labels, images of one identity that stand together come into one chunk, whatever stands among them without an
    identity.
    """
    numbers = np.arange(len(index))
    first = np.ones(len(index), bool)  # where a chunk may begin
    if labels is not None and len(labels):
        # An image without identity belongs to the one around it, if the known images before and after show the same.
        known = labels >= 0
        before = np.maximum.accumulate(np.where(known, numbers, 0))
        after = np.minimum.accumulate(np.where(known, numbers, numbers[-1])[::-1])[::-1]
        owner = np.where(labels[before] == labels[after], labels[before], -1)
        first = (np.diff(owner, prepend=-1) != 0) | (owner < 0) | (np.diff(index["shard"], prepend=0) != 0)
    # Each image goes with the first of its run; a chunk is a stretch of CHUNK_BYTES of a shard in which runs begin.
    run = np.maximum.accumulate(np.where(first, numbers, 0))
    stretch = index["shard"].astype(np.int64) << 40 | (index["offset"][run] // CHUNK_BYTES).astype(np.int64)
    return np.flatnonzero(np.diff(stretch, prepend=-1))


class ChunkCache:
    """Shards read in chunks; those used last stay in memory. Safe to share between threads."""

    def __init__(self, shards: Bytes, index: np.ndarray, starts: np.ndarray, room: int, ahead: int = 0):
        """What is read and how much is kept.

        Args:
            shards: Where the bytes come from.
            index: Where each image stands.
            starts: The first image of each chunk, from `chunk_starts`.
            room: Bytes of chunks that stay in memory.
            ahead: Chunks that are read before they are asked for, which suits a reader who goes through the shards in
                order.
        """
        self._shards = shards
        self._starts = starts
        self._room = room
        self._ahead = ahead
        # Each chunk is `_size` bytes of its shard, from `_begin` to the end of its last record.
        last = index[np.append(starts[1:], len(index)) - 1]
        framing = tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
        self._shard = index["shard"][starts].astype(np.int64)
        self._begin = index["offset"][starts].astype(np.int64)
        self._size = last["offset"].astype(np.int64) + last["length"] + framing - self._begin
        self._keys = self._shard << 40 | self._begin
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_AT_ONCE, "chunks")
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()  # the one used last stands last
        self._held = 0  # bytes of those

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard, out of the chunk in which they stand."""
        chunk = int(np.searchsorted(self._keys, shard << 40 | offset, side="right")) - 1
        future = self._request(chunk)
        for following in range(chunk + 1, min(chunk + 1 + self._ahead, len(self._starts))):
            self._request(following)
        try:
            data = future.result()
        except BaseException:
            with self._lock:  # another time it may be there
                self._held -= int(self._size[chunk]) if self._kept.pop(chunk, None) else 0
            raise
        place = offset - int(self._begin[chunk])
        return data[place : place + size]

    def fetch(self, numbers: np.ndarray) -> None:
        """Have chunks on their way, for images that will be read, in this order."""
        chunks = np.searchsorted(self._starts, numbers, side="right") - 1
        for chunk in dict.fromkeys(chunks.tolist()):
            self._request(chunk)

    def _request(self, chunk: int) -> "Future[bytes]":
        """A chunk that is kept or on its way; it counts as used, and what was used longest ago is dropped for it."""
        with self._lock:
            if chunk not in self._kept:
                size = int(self._size[chunk])
                where = int(self._shard[chunk]), int(self._begin[chunk]), size
                self._kept[chunk] = self._pool.submit(self._shards.read, *where)
                self._held += size
            future = self._kept[chunk]
            self._kept.move_to_end(chunk)
            while self._held > self._room and len(self._kept) > 1:
                oldest, _ = self._kept.popitem(last=False)
                self._held -= int(self._size[oldest])
            return future


def _allow_open_files(wanted: int) -> None:
    """Every shard stays open while it is read; the soft limit on open files is often far below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard or (soft < wanted and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
