"""The largest batch that the devices hold, found from compiled programs."""

import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

import jax
import numpy as np

from cion_jax.config import AUTO, Training
from cion_jax.errors import UserError
from cion_jax.hosts import all_gather, is_main
from cion_jax.run.forecast import fitting_step, memory, memory_limit
from cion_jax.run.method import Method
from cion_jax.run.sharding import make_mesh

Settings = TypeVar("Settings", bound=Training)

#: Of a device's memory. The rest is for what a program does not count: other programs, and gaps between arrays.
SHARE = 0.9


def fitted(
    settings: Settings,
    instances: Collection[int],
    make: Callable[[Settings], Method],
    devices: Sequence[jax.Device] | None = None,
) -> Settings:
    """The settings with numbers where `batch` or `accumulate` are auto: the largest batch that the devices hold, or as
    few parts of a given one as they hold.

    Args:
        settings: What was asked for.
        instances: Each K of the run, which a part of the batch must be a multiple of.
        make: Makes the method of settings.
        devices: On which; by default those that are there.
    """
    if AUTO not in (settings.batch, settings.accumulate):
        return settings
    there = devices or jax.devices()
    unit = len(there) * math.lcm(*instances)
    mesh = make_mesh(len(there), settings.model_axis, devices)
    limit = memory_limit(there[0])
    most = unit
    for _ in range(2):  # what an image needs is told by few of them, and then by as many as seemed to fit
        method, program, _ = fitting_step(make(replace(settings, batch=most, accumulate=1)), max(instances), mesh)
        needed = memory(method, max(instances), mesh, program)
        own = needed.fits(int(SHARE * limit)) * len(there) // unit * unit
        most = int(all_gather(np.array([own])).min())  # every host takes what the smallest device holds
        if not most:
            break
    if not most:
        raise UserError(
            f"{limit / 1e9:,.1f} GB of a device do not hold {unit // len(there)} images of {settings.backbone} beside "
            f"its {needed.fixed / 1e9:,.1f} GB; choose smaller images or another backbone, or --remat"
        )
    if settings.batch == AUTO:
        parts = 1 if settings.accumulate == AUTO else settings.accumulate
        return _found(replace(settings, batch=most * parts, accumulate=parts))
    for parts in range(1, settings.batch // unit + 1):
        if settings.batch % (parts * unit) == 0 and settings.batch <= parts * most:
            return _found(replace(settings, accumulate=parts))
    raise UserError(
        f"a batch of {settings.batch} images does not split into parts of at most {most} that are multiples of {unit}, "
        f"as {len(there)} devices and every number of instances need them; choose a multiple of {unit}"
    )


def _found(settings: Settings) -> Settings:
    if is_main():
        print(f"found to fit: --batch {settings.batch} --accumulate {settings.accumulate}", file=sys.stderr)
    return settings
