"""What a run will do, settled before anything is computed: its stages, and the batches of each."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cion_jax.config import AUTO, Training
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import chunk_starts
from cion_jax.errors import UserError


class Stage(NamedTuple):
    """Epochs with one K and one labelling."""

    epochs: range
    instances: int
    """K, images of an identity in a batch."""
    relabel: bool
    """Whether new labels are made before the first of these epochs."""


Stages = tuple[Stage, ...]


def remaining(stages: Stages, epoch: int) -> Iterator[Stage]:
    """The stages from an epoch on; one that has begun is cut short, and its labels are made already."""
    for stage in stages:
        if stage.epochs.start >= epoch:
            yield stage
        elif epoch < stage.epochs.stop:
            yield Stage(range(epoch, stage.epochs.stop), stage.instances, False)


def stages_of(instances: Sequence[int], relabel_at: Collection[int]) -> Stages:
    """The stages of a run with these K, one for each epoch, and new labels at the start of some epochs."""
    epochs = len(instances)
    starts = [
        epoch
        for epoch in range(epochs)
        if epoch == 0 or epoch in relabel_at or instances[epoch] != instances[epoch - 1]
    ]
    return tuple(
        Stage(range(start, stop), instances[start], start in relabel_at)
        for start, stop in zip(starts, [*starts[1:], epochs], strict=True)
    )


def sampler_for(settings: Training, records: Records, labels: np.ndarray, instances: int) -> PKSampler:
    """The sampler of batches with K instances."""
    shuffle = WindowedShuffle(_chunks(records, labels), settings.shuffle_window) if settings.shuffle_window else None
    return PKSampler(labels, settings.batch // instances, instances, settings.seed, shuffle)


def _chunks(records: Records, labels: np.ndarray) -> np.ndarray:
    """Chunks of the shards for a windowed shuffle; identities whose images are scattered over them are refused."""
    known = labels[labels >= 0]
    is_first = np.diff(known, prepend=-1) != 0
    identities, runs = np.unique(known[is_first], return_counts=True)
    if scattered := int((runs > 1).sum()):
        raise UserError(
            f"{records.folder}: the images of {scattered:,} of {len(identities):,} identities do not stand together, "
            "as a shuffle window needs them; `cion data repack --order grouped --labels LABELS` puts them together"
        )
    return chunk_starts(records.index, labels)


def epoch_batches(settings: Training, sampler: PKSampler) -> int:
    """Batches in an epoch: as many as the settings ask for, or else one pass of the sampler."""
    return settings.epoch_steps or sampler.batches


def check_training(settings: Training, devices: int | None, instances: Collection[int]) -> None:
    """Refuse, by name, what no method can do: lengths that are no length, batches that do not split over the devices.

    Without `devices`, which a process does not know before it has joined others, batches are not looked at; nor are
    they where a number is auto.
    """
    if settings.epochs < 1 or (settings.accumulate < 1 and settings.accumulate != AUTO):
        raise UserError(f"epochs ({settings.epochs}) and accumulate ({settings.accumulate}) must be at least 1")
    if settings.epoch_steps < 0:
        raise UserError(f"epoch_steps is {settings.epoch_steps}; give a number of steps, or 0 for a pass over the data")
    if settings.shuffle_window < 0:
        raise UserError(f"shuffle_window is {settings.shuffle_window}; it must be a number of batches, or 0")
    if devices is None or AUTO in (settings.batch, settings.accumulate):
        return
    counts = sorted(set(instances))
    multiple = devices * settings.accumulate * math.lcm(*counts)  # what suits every stage of the run
    if settings.batch % multiple or settings.batch < 1:
        several = " or ".join(map(str, counts))
        parts = f"{devices} devices x {settings.accumulate} parts x {several} instances"
        below = settings.batch // multiple * multiple
        fitting = " and ".join(str(each) for each in (below, below + multiple) if each > 0)
        raise UserError(f"a batch of {settings.batch} images does not split into {parts}; {fitting} would")
