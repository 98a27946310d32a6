"""What a run would be, without running it: its steps, and the memory that the compiled step takes on each device."""

import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from cion_jax.data.files import Folder
from cion_jax.data.records import Records
from cion_jax.hosts import is_main
from cion_jax.programs.account import account, described
from cion_jax.programs.devices import sheet_of
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


def forecast(method: Method, data: Folder, devices: Sequence[jax.Device] | None = None) -> list[str]:
    """Refuse what a run of this method would refuse, and describe its steps and its memory, line by line.

    The step is compiled and never run; nothing is written.

    Args:
        method: What would be trained, and how.
        data: A dataset folder.
        devices: On which; by default those that are there. For others (`programs.target`) the compiled program is
            described too.
    """
    records = Records(data)
    stages = method.stages(records)
    labels = method.first_labels(records)
    identities = len(set(labels[labels >= 0].tolist()))
    settings = method.settings
    samplers = {count: sampler_for(settings, records, labels, count) for count in {each.instances for each in stages}}
    batches = [epoch_batches(settings, samplers[stage.instances]) for stage in stages]
    mesh = make_mesh(len(devices or jax.devices()), settings.model_axis, devices)
    lines = [
        f"{data}: {len(records):,} images of {identities:,} identities at the start",
        "",
        *_epochs(method, stages, batches),
        "",
        _work(method, sum(len(stage.epochs) * each for stage, each in zip(stages, batches, strict=True))),
        "",
    ]
    instances = stages[-1].instances
    fitting, program, too_large = fitting_step(method, instances, mesh)
    device = mesh.devices.flat[0]
    lines += [*too_large, *_memory_table(fitting, stages, memory(fitting, instances, mesh, program), mesh)]
    if sheet := sheet_of(device.device_kind):
        leaves = len(jax.tree.leaves(abstract_state(method, mesh)))
        read = account(program, sheet, leaves)
        lines += ["", f"A step of {fitting.settings.batch:,} images, on each device:", "", *described(read, sheet)]
    return lines


def fitting_step(method: Method, instances: int, mesh: Mesh) -> tuple[Method, Any, list[str]]:
    """The compiled step, or that of the largest half, quarter, ... of the batch that the devices hold; the method with
    that batch; and a line for each that they do not."""
    settings = method.settings
    unit = mesh.size * settings.accumulate * instances
    too_large: list[str] = []
    while True:
        batch = method.settings.batch
        try:
            return method, compiled_step(method, instances, mesh), too_large
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or batch <= unit:
                raise
            reason = re.search(r"Used \S+ of \S+ \w+", str(error))
            too_large += [f"A batch of {batch:,} images does not fit: {reason[0] if reason else 'out of memory'}.", ""]
            method = method.with_batch(batch // 2 // unit * unit or unit)


def compiled_step(method: Method, instances: int, mesh: Mesh) -> Any:
    """The step as XLA compiles it for the devices of a mesh; a line on stderr says so, since it may take minutes."""
    if is_main():
        where = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
        print(f"compiling the step: {method.settings.batch:,} images, {where}", file=sys.stderr, flush=True)
    return lower_step(method, instances, mesh).compile()


def _epochs(method: Method, stages: Stages, batches: Sequence[int]) -> Iterator[str]:
    """A table of the epochs with one K and one labelling, and where labels are made anew."""
    settings = method.settings
    relabel_at = [stage.epochs.start for stage in stages if stage.relabel]
    yield "| epochs | K | batches an epoch |"
    yield "|---|---|---|"
    for stage, count in zip(stages, batches, strict=True):
        is_known = settings.epoch_steps or stage.epochs.start < min(relabel_at, default=settings.epochs)
        told = f"{count:,}" if is_known else "as new labels need"
        yield f"| {stage.epochs.start} to {stage.epochs.stop - 1} | {stage.instances} | {told} |"
    if relabel_at:
        yield ""
        yield f"Labels are made anew at the start of epochs {', '.join(map(str, relabel_at))}."


def _work(method: Method, steps: int) -> str:
    """The operations of a whole run of so many steps, by the formulas of its networks, and what they take."""
    each = method.flops()
    operations = steps * each
    return (
        f"{steps:,} steps if labels stay, {each / 1e9:,.3g} GFLOP each: "
        f"{operations / 1e15:,.3g} PFLOP in all, {operations / 1e13 / 3600:,.2g} hours at 10 TFLOP/s"
    )


def memory(method: Method, instances: int, mesh: Mesh, program: Any = None) -> Memory:
    """The memory of a step with K instances, from its programs for this (`program`, if it is there) and for another
    number of images."""
    settings = method.settings
    state = abstract_state(method, mesh)
    held = {name: _on_a_device(getattr(state, name)) for name in state._fields}
    images = settings.batch // settings.accumulate // mesh.size
    other = images // 2 // instances * instances if images >= MANY else -(-MANY // instances) * instances

    def temporary(program: Any) -> int:
        return int(program.memory_analysis().temp_size_in_bytes)

    needed = temporary(program or compiled_step(method, instances, mesh))
    smaller = compiled_step(method.with_batch(other * mesh.size * settings.accumulate), instances, mesh)
    each = max(0, round((needed - temporary(smaller)) / (images - other)))
    return Memory(
        parameters=sum(size for name, size in held.items() if name not in ("step", "opt_state")),
        opt_state=held["opt_state"],
        temporaries=max(0, needed - each * images),
        image=each + settings.accumulate * 3 * math.prod(settings.image_size),
        images=images,
    )


def _on_a_device(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _memory_table(method: Method, stages: Stages, needed: Memory, mesh: Mesh) -> list[str]:
    settings = method.settings
    device = mesh.devices.flat[0]
    count = mesh.size
    limit = memory_limit(device)
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


def memory_limit(device: jax.Device) -> int:
    """Bytes of a device that programs may use: as it says, if it is there; or else by its maker's sheet, of which JAX
    takes three quarters on a GPU. CPU devices share what the host has."""
    if device in jax.devices() and (limit := (device.memory_stats() or {}).get("bytes_limit")):
        return int(limit)
    if sheet := sheet_of(device.device_kind):
        return sheet.memory if sheet.clock else sheet.memory * 3 // 4
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
