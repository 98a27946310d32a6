"""From records to images on the devices: each host reads what its own devices get, one batch ahead of its use."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from cion_jax.config import Reading, Training
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler
from cion_jax.run.plan import epoch_batches
from cion_jax.run.sharding import batch_sharding, global_array


class Batch(NamedTuple):
    """What a step is given."""

    images: Any
    """uint8 (parts, batch / parts, H, W, 3), over all devices."""
    labels: Any
    """int32 (parts, batch / parts), over all devices: who is on each image, by the labels in use."""
    damaged: int
    """Images that this host replaced because their record was damaged."""
    waited: float
    """Seconds in which there was nothing to do but to wait for it."""


def device_batches(
    settings: Training,
    mesh: Mesh,
    records: Records,
    sampler: PKSampler,
    labels: np.ndarray,
    epochs: range,
    first: int = 0,
) -> Iterator[Batch]:
    """The batches of some epochs, from batch `first` of the first of them on; `labels` are those of the sampler.

    A batch is the same however many hosts there are, and whichever devices of the mesh are theirs.
    """
    sharding = batch_sharding(mesh)
    parts = settings.accumulate
    shape = (parts, settings.batch // parts, *settings.image_size, 3)
    # What this host reads: in each part of the batch, the rows that its own devices get.
    columns = sorted({_columns(index, shape) for index in sharding.addressable_devices_indices_map(shape).values()})
    rows = [part * shape[1] + np.arange(*column) for part in range(parts) for column in columns]
    identities = np.concatenate(rows)[:: sampler.instances] // sampler.instances
    width = len(rows[0])

    def of_device(values: np.ndarray, index: Any) -> np.ndarray:
        start = columns.index(_columns(index, shape)) * width
        return values.reshape(parts, -1, *values.shape[1:])[:, start : start + width]

    reading = Reading(
        *settings.image_size, resize=settings.resize, threads=settings.threads, skip_damaged=settings.skip_damaged
    )
    length = epoch_batches(settings, sampler)
    start, stop = epochs.start * length + first, epochs.stop * length
    batches = iter(host_batches(records, sampler, reading, start=start, stop=stop, identities=identities))
    ahead = None
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        waited = time.monotonic() - began
        if ahead is not None:
            yield ahead
        if batch is None:
            return
        images = global_array(shape, sharding, partial(of_device, batch["image"]))
        of_images = labels[batch["number"]].astype(np.int32)
        who = global_array(shape[:2], sharding, partial(of_device, of_images))
        ahead = Batch(images, who, int(batch["damaged"]), waited)


def _columns(index: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """First and last + 1 of the images in each part that a device gets, by the slices of the array that it gets."""
    start, stop, _ = index[1].indices(shape[1])
    return start, stop
