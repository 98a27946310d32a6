"""What a run would be, without running it: its steps, and the memory that the compiled step takes on each device."""

import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.run.method import Method, abstract_state, lower_step
from cion_jax.run.plan import Stages, epoch_batches, sampler_for
from cion_jax.run.sharding import make_mesh

#: Below so many images what does not grow with them hides what does.
MANY = 96


class Memory(NamedTuple):
    """Bytes on one device, as XLA plans the step's program."""

    parameters: int
    """All that is trained, with batch statistics, and what stands beside it: a teacher, a center, a memory."""
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


def forecast(method: Method, data: Folder) -> list[str]:
    """Refuse what a run of this method would refuse, and describe its steps and its memory, line by line.

    The step is compiled twice, for the devices that are there, and never run; nothing is written.

    Args:
        method: What would be trained, and how.
        data: A dataset folder.
    """
    mesh = make_mesh(jax.device_count(), method.settings.model_axis)
    records = Records(data)
    stages = method.stages(records)
    labels = method.first_labels(records)
    identities = len(set(labels[labels >= 0].tolist()))
    return [
        f"{data}: {len(records):,} images of {identities:,} identities at the start",
        "",
        *_epochs(method, records, stages, labels),
        "",
        *_memory_table(method, stages, memory(method, stages[-1].instances, mesh)),
    ]


def _epochs(method: Method, records: Records, stages: Stages, labels: np.ndarray) -> Iterator[str]:
    """A table of the epochs with one K and one labelling, and where labels are made anew."""
    settings = method.settings
    relabel_at = [stage.epochs.start for stage in stages if stage.relabel]
    yield "| epochs | K | batches an epoch |"
    yield "|---|---|---|"
    for stage in stages:
        is_known = settings.epoch_steps or stage.epochs.start < min(relabel_at, default=settings.epochs)
        sampler = sampler_for(settings, records, labels, stage.instances)
        batches = f"{epoch_batches(settings, sampler):,}" if is_known else "as new labels need"
        yield f"| {stage.epochs.start} to {stage.epochs.stop - 1} | {stage.instances} | {batches} |"
    if relabel_at:
        yield ""
        yield f"Labels are made anew at the start of epochs {', '.join(map(str, relabel_at))}."


def memory(method: Method, instances: int, mesh: Mesh) -> Memory:
    """The memory of a step with K instances, from its programs for this and for another number of images."""
    settings = method.settings
    state = abstract_state(method, mesh)
    held = {name: _on_a_device(getattr(state, name)) for name in state._fields}
    images = settings.batch // settings.accumulate // mesh.size
    other = images // 2 // instances * instances if images >= MANY else -(-MANY // instances) * instances

    def temporary(images: int) -> int:
        """Of the program for so many images at a time on each device."""
        batch = images * mesh.size * settings.accumulate
        program = lower_step(method.with_batch(batch), instances, mesh).compile()
        return program.memory_analysis().temp_size_in_bytes

    needed = temporary(images)
    each = max(0, round((needed - temporary(other)) / (images - other)))
    return Memory(
        parameters=sum(size for name, size in held.items() if name not in ("step", "opt_state")),
        opt_state=held["opt_state"],
        temporaries=max(0, needed - each * images),
        image=each + settings.accumulate * 3 * math.prod(settings.image_size),
        images=images,
    )


def _on_a_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _memory_table(method: Method, stages: Stages, needed: Memory) -> list[str]:
    settings = method.settings
    device = jax.devices()[0]
    count = jax.device_count()
    limit = (device.memory_stats() or {}).get("bytes_limit") or _of_the_host() // jax.local_device_count()
    multiple = math.lcm(*(stage.instances for stage in stages))
    fitting = needed.fits(limit) // multiple * multiple
    rows = {
        "parameters and batch statistics": needed.parameters,
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
