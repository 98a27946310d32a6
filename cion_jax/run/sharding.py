"""Where arrays live: the mesh, how states and batches are split over it, and arrays that span all hosts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from cion_jax.errors import UserError

T = TypeVar("T")


def make_mesh(count: int, model_axis: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices as (data, model): `model_axis` of them share the prototypes; all of them share the images.

    Devices of a group have the same bottleneck vectors: beyond the backbone, the groups share the batch.

    Args:
        count: How many devices.
        model_axis: How many of them are a group.
        devices: Which; by default those that JAX has found.
    """
    if model_axis < 1 or count % model_axis:
        raise UserError(f"{count} devices cannot be split into groups of {model_axis}; set model_axis to a divisor")
    axes = (AxisType.Auto,) * 2
    return jax.make_mesh((count // model_axis, model_axis), ("data", "model"), axis_types=axes, devices=devices)


def shardings(mesh: Mesh, specs: Any) -> Any:
    """A tree of shardings from a tree of partition specs."""
    return jax.tree.map(partial(NamedSharding, mesh), specs)


def shardings_of(tree: Any) -> Any:
    """The shardings of a tree of arrays, or of their shapes."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of images (parts, batch / parts, ...): all devices share them, by groups of the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))


def global_array(shape: tuple[int, ...], sharding: Sharding, part: Callable[[Any], np.ndarray]) -> jax.Array:
    """An array over the devices of all hosts; `part` makes what one device of this host has of it, from its slices.

    `jax.device_put` would ask all hosts whether they put the same, each time.
    """
    slices = sharding.addressable_devices_indices_map(shape)
    parts = jax.device_put([part(index) for index in slices.values()], list(slices))
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def replicate(numbers: T, mesh: Mesh) -> T:
    """A tree of numbers as arrays that every device has."""
    sharding = replicated(mesh)

    def put(number: Any) -> jax.Array:
        value = np.asarray(number, jax.dtypes.canonicalize_dtype(np.result_type(number)))
        return global_array((), sharding, lambda _: value)

    return jax.tree.map(put, numbers)


def local_copy(tree: T) -> T:
    """Arrays that every device has, as arrays of this host alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
