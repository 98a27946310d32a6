"""What a run would be, without running it: its steps, and the memory that the compiled step takes on each device."""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cion_jax.config import Pretraining
from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.models.zoo import Backbone
from cion_jax.pretrain.state import placement, shapes
from cion_jax.pretrain.step import StepConfig, lowered
from cion_jax.run.plan import (
    epoch_batches,
    instances_at,
    labels_of,
    prepared,
    relabel_epochs,
    sampler_of,
    segments,
)

#: Below so many images what does not grow with them hides what does.
MANY = 96


class Memory(NamedTuple):
    """Bytes on one device, as XLA plans the step's program."""

    parameters: int
    """Of student and teacher, with batch statistics and center."""
    opt_state: int
    """Of the optimizer."""
    temporaries: int
    """Gradients, and whatever else does not grow with the batch."""
    image: int
    """For each image that goes through the networks at once: itself, its crops and activations."""
    images: int
    """How many do."""

    @property
    def fixed(self) -> int:
        """What is needed whatever the batch."""
        return self.parameters + self.opt_state + self.temporaries

    @property
    def total(self) -> int:
        """All of it."""
        return self.fixed + self.image * self.images

    def fits(self, limit: int) -> int:
        """How many images could go through at once with so many bytes."""
        return max(0, (limit - self.fixed) // max(self.image, 1))


def forecast(settings: Pretraining, data: Folder) -> list[str]:
    """Refuse what a run with these settings would refuse, and tell its steps and its memory, line by line.

    The step is compiled twice, for the devices that are there, and never run; nothing is written.

    Args:
        settings: What would be trained, and how.
        data: A dataset folder.
    """
    mesh, records, model = prepared(settings, data)
    labels = labels_of(settings, records)
    people = len(set(labels[labels >= 0].tolist()))
    return [
        f"{data}: {len(records):,} images of {people:,} identities at the {settings.level} level",
        "",
        *_epochs(settings, records, labels),
        "",
        *_told(settings, memory(settings, model, mesh)),
    ]


def _epochs(settings: Pretraining, records: Records, labels: np.ndarray) -> Iterator[str]:
    """A table of the epochs with one K and one labelling, and where labels are made anew."""
    anew = relabel_epochs(settings, records)
    yield "| epochs | K | batches an epoch |"
    yield "|---|---|---|"
    for epochs in segments(settings, 0, anew):
        instances = instances_at(settings, epochs.start)
        known = settings.epoch_steps or epochs.start < min(anew, default=settings.epochs)
        order = sampler_of(settings, records, labels, instances)
        batches = f"{epoch_batches(settings, order):,}" if known else "as new labels need"
        yield f"| {epochs.start} to {epochs.stop - 1} | {instances} | {batches} |"
    if anew:
        yield ""
        yield f"Labels are made anew at the start of epochs {', '.join(map(str, anew))}."


def memory(settings: Pretraining, model: Backbone, mesh: Mesh) -> Memory:
    """The memory of a step, from its programs for this and for another number of images."""
    state = shapes(model, settings.head, settings.optimization)
    places = placement(mesh, state)
    held = {name: _on_a_device(getattr(state, name), getattr(places, name)) for name in state._fields}
    instances, images = instances_at(settings, settings.epochs - 1), settings.batch // settings.accumulate // mesh.size
    other = images // 2 // instances * instances if images >= MANY else -(-MANY // instances) * instances

    def temporary(images: int) -> int:
        """Of the program for so many images at a time on each device."""
        batch = images * mesh.size * settings.accumulate
        program = lowered(StepConfig(replace(settings, batch=batch), model, instances, mesh)).compile()
        return program.memory_analysis().temp_size_in_bytes

    needed = temporary(images)
    each = max(0, round((needed - temporary(other)) / (images - other)))
    return Memory(
        parameters=sum(held[name] for name in ("student", "teacher", "batch_stats", "center")),
        opt_state=held["opt_state"],
        temporaries=max(0, needed - each * images),
        image=each + settings.accumulate * 3 * math.prod(settings.image_size),
        images=images,
    )


def _on_a_device(tree: Any, places: Any) -> int:
    shapes = zip(jax.tree.leaves(tree), jax.tree.leaves(places), strict=True)
    return sum(math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, place in shapes)


def _told(settings: Pretraining, needed: Memory) -> list[str]:
    device, count = jax.devices()[0], jax.device_count()
    limit = (device.memory_stats() or {}).get("bytes_limit") or _of_the_host() // jax.local_device_count()
    multiple = math.lcm(*(instances_at(settings, epoch) for epoch in range(settings.epochs)))
    fitting = needed.fits(limit) // multiple * multiple
    rows = {
        "parameters of student and teacher": needed.parameters,
        "the optimizer's moments": needed.opt_state,
        "gradients and other temporaries": needed.temporaries,
        f"{needed.images:,} images at a time, {needed.image / 1e6:,.1f} MB each": needed.image * needed.images,
        "in all": needed.total,
    }
    return [
        f"| a device ({count:,} x {device.device_kind}) | GB |",
        "|---|---|",
        *(f"| {name} | {size / 1e9:,.2f} |" for name, size in rows.items()),
        "",
        f"{limit / 1e9:,.1f} GB would hold about {fitting:,} images at a time on each: "
        f"--batch {fitting * count * settings.accumulate} with --accumulate {settings.accumulate}",
    ]


def _of_the_host() -> int:
    """Memory that CPU devices share."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
