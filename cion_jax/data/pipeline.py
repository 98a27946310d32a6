"""From records to uint8 batches on the host: read, check, decode, resize, ahead of the step that uses them."""

import os
from collections.abc import Callable
from typing import SupportsIndex

import grain
import numpy as np

from cion_jax.config import Reading
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import CHUNK_BYTES, ChunkCache
from cion_jax.errors import UserError

Batch = dict[str, np.ndarray]
#: Has the records of some images on their way.
Fetch = Callable[[np.ndarray], None]


def host_batches(
    records: Records,
    order: PKSampler,
    reading: Reading,
    *,
    epochs: int = 1,
    start: int = 0,
    stop: int | None = None,
    identities: np.ndarray | None = None,
) -> grain.IterDataset:
    """One host's share of every batch of the epochs 0..epochs-1 of an order, one after the other, as a Grain dataset.

    Batches are counted from the beginning of epoch 0. The first `start` are left out without being read; with `stop`
    the dataset ends before that batch, wherever in an epoch it is, and `epochs` does not count. `identities` says which
    of a batch's P identities are this host's, by number and in the order that it wants them; all by default.

    A batch has `image` (uint8, rows x height x width x 3), `number` (the image's number in the records, rows) and
    `damaged` (images replaced because their record was damaged, a scalar); an identity's K images stand in
    consecutive rows. Where the order is a stream the pieces that a window needs are read while the one before is used.
    `iter(...)` gives an iterator whose `get_state()` and `set_state(state)` save and restore the
    exact position; a batch is the same whether the ones before were drawn or not.
    """
    if order.images != len(records):
        raise UserError(f"{order.images} labels for {len(records)} images of {records.folder}; they are not its own")
    rows = np.arange(order.identities) if identities is None else identities
    fetch: Fetch | None = None
    if order.stream is not None:
        records, fetch = _in_pieces(records, order, order.stream, len(rows))
    numbers = _Numbers(order, rows, start, epochs * order.batches if stop is None else stop, fetch)
    # A thread decodes whole batches: smaller ones cost more in hand-overs than they gain
    # (experiments.benchmarks.records).
    threads = reading.threads or len(os.sched_getaffinity(0))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return grain.MapDataset.source(numbers).map(_Decode(records, reading)).to_iter_dataset(ahead)


class _Numbers:
    """The image numbers of one batch after the other: the given rows of the batches from `start` to before `stop`."""

    def __init__(self, order: PKSampler, rows: np.ndarray, start: int, stop: int, fetch: Fetch | None):
        self._order, self._rows, self._start, self._stop = order, rows, start, stop
        self._fetch = fetch
        self._fetched: set[int] = set()

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, number: SupportsIndex) -> np.ndarray:
        batch = self._start + int(number)
        if self._fetch is not None:
            self._look_ahead(self._fetch, batch)
        return self._images(batch)

    def _images(self, batch: int) -> np.ndarray:
        """Image numbers of a batch, counted from the beginning of epoch 0."""
        return self._order.batch(*divmod(batch, self._order.batches), self._rows)

    def _window(self, batch: int) -> range:
        """The batches that are mixed with a batch, counted as it is."""
        within = batch % self._order.batches
        window = self._order.window(within)
        return range(batch - within + window.start, batch - within + window.stop)

    def _look_ahead(self, fetch: Fetch, batch: int) -> None:
        """Have this window's pieces and the next one's on their way."""
        this = self._window(batch)
        for window in (this, self._window(this.stop)):
            if window.start not in self._fetched:
                self._fetched.add(window.start)
                for ahead in range(window.start, min(window.stop, self._stop)):
                    fetch(self._images(ahead))


def _in_pieces(records: Records, order: PKSampler, stream: WindowedShuffle, rows: int) -> tuple[Records, Fetch]:
    """Records that are read in the pieces of a stream, and what has them fetched.

    There is room for three windows, one that is used, the one before, of which threads may hold batches, and the next.
    """
    window = stream.window * rows * order.instances * float(records.index["length"].mean())
    pieces = ChunkCache(records.shards, records.index, stream.starts, room=int(3 * window) + 16 * CHUNK_BYTES)
    return records.over(pieces), lambda numbers: pieces.fetch(numbers.ravel())


class _Decode:
    """Image numbers, an identity per row, to the batch of their pixels. The only work that many threads do."""

    def __init__(self, records: Records, reading: Reading):
        self._records, self._reading = records, reading

    def __call__(self, numbers: np.ndarray) -> Batch:
        found, damaged = np.array(numbers), 0
        image = np.empty((*numbers.shape, self._reading.height, self._reading.width, 3), np.uint8)
        for place in np.ndindex(numbers.shape):
            try:
                self._records.pixels_into(image[place], numbers[place])
            except DamagedRecordError as error:
                if not self._reading.skip_damaged:
                    raise
                damaged += 1
                found[place] = self._substitute(image[place], np.roll(numbers[place[0]], -place[1])[1:], error)
        return {"image": image.reshape(-1, *image.shape[2:]), "number": found.ravel(), "damaged": np.array(damaged)}

    def _substitute(self, out: np.ndarray, others: np.ndarray, error: DamagedRecordError) -> int:
        """Fill in the next whole image of the same group; where none is left the damage cannot be passed over."""
        for number in others:
            try:
                self._records.pixels_into(out, number)
                return number
            except DamagedRecordError:
                continue
        raise DamagedRecordError(f"{error} (and no other image of its group is whole)")
