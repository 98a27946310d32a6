"""From records to uint8 batches on the host: read, check, decode, resize, ahead of the step that uses them."""

import os
from typing import SupportsIndex

import grain
import numpy as np

from cion_jax.config import Reading
from cion_jax.data.order import Order
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.errors import UserError

Batch = dict[str, np.ndarray]


def host_batches(
    records: Records,
    order: Order,
    reading: Reading,
    *,
    epochs: int,
    start: int = 0,
    identities: np.ndarray | None = None,
) -> grain.IterDataset:
    """One host's share of every batch of the epochs 0..epochs-1, in order, as a Grain dataset.

    The first `start` batches, counted from the beginning of epoch 0, are left out without being read. `identities` says
    which of a batch's P identities are this host's, by number and in the order that it wants them; all by default.

    A batch has `image` (uint8, rows x height x width x 3), `number` (the image's number in the records, rows) and
    `damaged` (images replaced because their record was damaged, a scalar); an identity's K images stand in
    consecutive rows. `iter(...)` gives an iterator whose `get_state()` and `set_state(state)` save and restore the
    exact position; a batch is the same whether the ones before were drawn or not.
    """
    if order.images != len(records):
        raise UserError(f"{order.images} labels for {len(records)} images of {records.folder}; they are not its own")
    numbers = _Numbers(order, np.arange(order.identities) if identities is None else identities, start, epochs)
    # A thread decodes whole batches: smaller pieces cost more in hand-overs than they gain (experiments.bench_records).
    threads = reading.threads or len(os.sched_getaffinity(0))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return grain.MapDataset.source(numbers).map(_Decode(records, reading)).to_iter_dataset(ahead)


class _Numbers:
    """The image numbers of one batch after the other: the given rows of every batch from the start on."""

    def __init__(self, order: Order, rows: np.ndarray, start: int, epochs: int):
        self._order, self._rows, self._start, self._epochs = order, rows, start, epochs

    def __len__(self) -> int:
        return self._epochs * self._order.batches - self._start

    def __getitem__(self, number: SupportsIndex) -> np.ndarray:
        return self._order.batch(*divmod(self._start + int(number), self._order.batches), self._rows)


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
