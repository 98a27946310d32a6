"""The bytes of a split's shards: one record at a time, or in long pieces that are read ahead of their use."""

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

#: Bytes of a piece: so many that a store's time to answer hardly counts beside its time to send.
CHUNK_BYTES = 8 << 20
#: Requests at a time.
_AT_ONCE = 8


class Bytes(Protocol):
    """What records are cut from."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard, from an offset on; fewer where it ends before."""
        ...


class Shards:
    """The shard files, each read wherever asked. Safe to share between threads."""

    def __init__(self, paths: Sequence[Path]):
        self._paths, self._remote = paths, any(map(is_remote, paths))
        self._opening, self._open = threading.Lock(), dict[int, int]()
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
                try:
                    self._open[shard] = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise UserError(f"{error.filename}: {error.strerror}; see `cion data check`") from None
            return self._open[shard]

    def __del__(self) -> None:
        for file in self.__dict__.get("_open", {}).values():
            os.close(file)


def chunk_starts(index: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Pieces of about `PIECE` bytes, none over two shards: the number of each one's first image.

    With labels, images of one identity that stand together come into one piece, whatever without one is among them.
    """
    numbers = np.arange(len(index))
    first = np.ones(len(index), bool)
    if labels is not None and len(labels):
        known = labels >= 0
        before = np.maximum.accumulate(np.where(known, numbers, 0))
        after = np.minimum.accumulate(np.where(known, numbers, numbers[-1])[::-1])[::-1]
        owner = np.where(labels[before] == labels[after], labels[before], -1)
        first = (np.diff(owner, prepend=-1) != 0) | (owner < 0) | (np.diff(index["shard"], prepend=0) != 0)
    run = np.maximum.accumulate(np.where(first, numbers, 0))  # the first image of the run that each stands in
    stretch = index["shard"].astype(np.int64) << 40 | (index["offset"][run] // CHUNK_BYTES).astype(np.int64)
    return np.flatnonzero(np.diff(stretch, prepend=-1))


class ChunkCache:
    """Shards read in pieces; those used last stay in memory. Safe to share between threads."""

    def __init__(self, shards: Bytes, index: np.ndarray, starts: np.ndarray, room: int, ahead: int = 0):
        """`starts` is of `cut`; pieces of `room` bytes in all stay, and `ahead` of them are read before they are asked
        for, which suits a reader who goes through the shards in order."""
        self._shards, self._starts, self._room, self._ahead, self._held = shards, starts, room, ahead, 0
        last = index[np.append(starts[1:], len(index)) - 1]
        framing = tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
        self._shard, self._begin = index["shard"][starts].astype(np.int64), index["offset"][starts].astype(np.int64)
        self._size = last["offset"].astype(np.int64) + last["length"] + framing - self._begin
        self._keys = self._shard << 40 | self._begin
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(_AT_ONCE, "pieces")
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard, out of the piece in which they stand."""
        piece = int(np.searchsorted(self._keys, shard << 40 | offset, side="right")) - 1
        found = self._asked_for(piece)
        for following in range(piece + 1, min(piece + 1 + self._ahead, len(self._starts))):
            self._asked_for(following)
        try:
            data = found.result()
        except BaseException:
            with self._lock:  # another time it may be there
                self._held -= int(self._size[piece]) if self._kept.pop(piece, None) else 0
            raise
        place = offset - int(self._begin[piece])
        return data[place : place + size]

    def fetch(self, numbers: np.ndarray) -> None:
        """Have pieces on their way, for images that will be read, in this order."""
        pieces = np.searchsorted(self._starts, numbers, side="right") - 1
        for piece in dict.fromkeys(pieces.tolist()):
            self._asked_for(piece)

    def _asked_for(self, piece: int) -> "Future[bytes]":
        with self._lock:
            if piece not in self._kept:
                where = int(self._shard[piece]), int(self._begin[piece]), int(self._size[piece])
                self._kept[piece] = self._pool.submit(self._shards.read, *where)
                self._held += where[2]
            found = self._kept[piece]
            self._kept.move_to_end(piece)
            while self._held > self._room and len(self._kept) > 1:
                oldest, _ = self._kept.popitem(last=False)
                self._held -= int(self._size[oldest])
            return found


def _allow_open_files(wanted: int) -> None:
    """Every shard stays open while it is read; the soft limit on open files is often far below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard or (soft < wanted and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
