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
    sampler: PKSampler,
    reading: Reading,
    *,
    epochs: int = 1,
    start: int = 0,
    stop: int | None = None,
    identities: np.ndarray | None = None,
) -> grain.IterDataset:
    """One host's share of every batch of a sampler's epochs, one after the other, as a Grain dataset.

    A batch is a dict of `image` (uint8, rows x height x width x 3), `number` (rows: each image's number in the records)
    and `damaged` (a scalar: images replaced because their record was damaged); an identity's K images stand in
    consecutive rows. With a windowed shuffle the chunks of the next window are read while one window is used.

    `iter(...)` gives an iterator whose `get_state()` and `set_state(state)` save and restore the exact position. A
    batch is the same whether the ones before were drawn or not.

    Args:
        records: The images.
        sampler: Which images each batch holds.
        reading: How they are decoded.
        epochs: How many epochs of the sampler, from epoch 0 on; `stop` overrides it.
        start: The first batch, counted from the beginning of epoch 0; those before are not read.
        stop: The batch before which the dataset ends, counted likewise.
        identities: Which of a batch's P identities are this host's, in the order that it wants them; all by default.
    """
    if sampler.images != len(records):
        raise UserError(f"{sampler.images} labels for {len(records)} images of {records.folder}; they are not its own")
    rows = np.arange(sampler.identities) if identities is None else identities
    fetch: Fetch | None = None
    if sampler.shuffle is not None:
        records, fetch = _in_chunks(records, sampler, sampler.shuffle, len(rows))
    last = epochs * sampler.batches if stop is None else stop
    numbers = _Numbers(sampler, rows, start, last, fetch)
    # A thread decodes whole batches: smaller ones cost more in hand-overs than they gain
    # (experiments.benchmarks.records).
    threads = reading.threads or len(os.sched_getaffinity(0))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return grain.MapDataset.source(numbers).map(_Decode(records, reading)).to_iter_dataset(ahead)


class _Numbers:
    """The image numbers of one batch after the other: the given rows of the batches from `start` to before `stop`."""

    def __init__(self, sampler: PKSampler, rows: np.ndarray, start: int, stop: int, fetch: Fetch | None):
        self._sampler = sampler
        self._rows = rows
        self._start = start
        self._stop = stop
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
        return self._sampler.batch(*divmod(batch, self._sampler.batches), self._rows)

    def _window(self, batch: int) -> range:
        """The batches that are mixed with a batch, counted as it is."""
        within = batch % self._sampler.batches
        window = self._sampler.window(within)
        return range(batch - within + window.start, batch - within + window.stop)

    def _look_ahead(self, fetch: Fetch, batch: int) -> None:
        """Have this window's chunks and the next one's on their way."""
        this = self._window(batch)
        for window in (this, self._window(this.stop)):
            if window.start not in self._fetched:
                self._fetched.add(window.start)
                for ahead in range(window.start, min(window.stop, self._stop)):
                    fetch(self._images(ahead))


def _in_chunks(records: Records, sampler: PKSampler, shuffle: WindowedShuffle, rows: int) -> tuple[Records, Fetch]:
    """Records that are read in the chunks of a windowed shuffle, and what has chunks fetched.

    There is room for three windows: the one that is used, the one before, of which threads may still hold batches, and
    the next.
    """
    window = shuffle.window * rows * sampler.instances * float(records.index["length"].mean())
    chunks = ChunkCache(records.shards, records.index, shuffle.starts, room=int(3 * window) + 16 * CHUNK_BYTES)
    return records.over(chunks), lambda numbers: chunks.fetch(numbers.ravel())


class _Decode:
    """Image numbers, an identity per row, to the batch of their pixels. The only work that many threads do."""

    def __init__(self, records: Records, reading: Reading):
        self._records = records
        self._reading = reading

    def __call__(self, numbers: np.ndarray) -> Batch:
        used = np.array(numbers)
        damaged = 0
        image = np.empty((*numbers.shape, self._reading.height, self._reading.width, 3), np.uint8)
        for place in np.ndindex(numbers.shape):
            try:
                self._records.pixels_into(image[place], numbers[place], self._reading.resize)
            except DamagedRecordError as error:
                if not self._reading.skip_damaged:
                    raise
                damaged += 1
                identity, instance = place
                others = np.roll(numbers[identity], -instance)[1:]
                used[place] = self._substitute(image[place], others, error)
        return {"image": image.reshape(-1, *image.shape[2:]), "number": used.ravel(), "damaged": np.array(damaged)}

    def _substitute(self, out: np.ndarray, others: np.ndarray, error: DamagedRecordError) -> int:
        """Fill in the next whole image of the group and return its number; without one the damage is raised."""
        for number in others:
            try:
                self._records.pixels_into(out, number, self._reading.resize)
                return number
            except DamagedRecordError:
                continue
        raise DamagedRecordError(f"{error} (and no other image of its group is whole)")
