"""Level 1, a single tracklet: its worst image is dropped until all that stay are near their centroid.

With the Gram matrix G of a tracklet and its members as ones in m, member i is 1 - (G m)_i / sqrt(m' G m) away from the
centroid: after one product for many tracklets at once, a drop costs no more than the tracklet's length.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.denoise.noise import Members, members
from cion_jax.denoise.vectors import unit
from cion_jax.hosts import all_gather, local_part

_product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

#: Numbers in the padded features of the tracklets that go to a device together.
ROOM = 1 << 22
#: Distances that differ by less are equal, and the first of them drops: where two are left, both are equally far.
TIE = 1e-5
#: m' G m is at least this: members that cancel out have no centroid.
LEAST = 1e-12
#: Longer tracklets go without a Gram matrix, which grows with the square of their length.
LONG = 1024


def consistent(features: np.ndarray, labels: np.ndarray, sigma: float) -> Members:
    """The images that are left when each tracklet drops its farthest until all are within sigma of their centroid.

    The devices round: from a tracklet that they leave a little too wide the host drops the rest, in float64.

    Args:
        features: (N, D) unit vectors.
        labels: (N,) tracklets, -1 for none.
        sigma: Largest distance from the centroid.
    """
    images = np.flatnonzero(labels >= 0)
    images = images[np.argsort(labels[images], kind="stable")]
    kept = np.full_like(labels, -1)
    starts = np.flatnonzero(np.diff(labels[images], prepend=-1))

    place = NamedSharding(Mesh(np.array(jax.local_devices()), "devices"), PartitionSpec("devices"))
    staying = [np.empty(0, np.int64)]
    for rows, present in local_part(list(_buckets(starts, len(images), features.shape[1]))):
        stay = np.asarray(drop(*jax.device_put((features[images[rows]], present), place), sigma))
        staying.append(images[rows[stay]])
    stayed = all_gather(np.concatenate(staying))
    kept[stayed] = labels[stayed]

    cleaned = members(features, kept)
    wide = np.unique(cleaned.row[cleaned.distance > sigma])
    for some in (cleaned.images[cleaned.row == row] for row in wide):
        kept[some[~_fitting(features[some], sigma)]] = -1
    return members(features, kept) if len(wide) else cleaned


def _fitting(features: np.ndarray, sigma: float) -> np.ndarray:
    """The same for one tracklet, in float64: which of its images stay."""
    features = features.astype(np.float64)
    fits = np.ones(len(features), bool)
    total = features.sum(axis=0)
    while True:
        # 1 - distance from the centroid
        similar = np.where(fits, features @ unit(total), 1)
        worst = similar.argmin()
        if similar[worst] >= 1 - sigma:
            return fits
        fits[worst] = False
        total -= features[worst]


def _buckets(starts: np.ndarray, total: int, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and members (tracklets, length), tracklets of like length together, padded to few shapes."""
    sizes = np.diff(starts, append=total)
    lengths = 1 << np.ceil(np.log2(np.maximum(sizes, 4))).astype(int)
    devices = jax.local_device_count()
    for length in np.unique(lengths):
        together = max(1, ROOM // int(length * max(length, width))) * devices
        alike = np.flatnonzero(lengths == length)
        for some in np.split(alike, range(together, len(alike), together)):
            rows = starts[some, None] + np.arange(length)
            members = np.arange(length) < sizes[some, None]
            pad = (0, together - len(some)), (0, 0)  # one shape, one program, and nothing depends on what is beside it
            yield np.pad(np.where(members, rows, 0), pad), np.pad(members, pad)


@jax.jit
def drop(features: Array, members: Array, sigma: Array) -> Array:
    """Which members (tracklets, length) of padded tracklets (tracklets, length, D) stay."""
    return jax.vmap(_drop_one, in_axes=(0, 0, None))(features, members, sigma)


def _drop_one(features: Array, members: Array, sigma: Array) -> Array:
    gram = _product(features, features.T) if len(features) <= LONG else None

    def similar(member: Array) -> Array:
        # a column of G
        return gram[member] if gram is not None else _product(features, features[member])

    def distances(kept: Array, sums: Array) -> Array:
        # 1 - (G m)_i / sqrt(m' G m), with `kept` as m and `sums` as G m
        return jnp.where(kept, 1 - sums / jnp.sqrt(jnp.maximum(kept @ sums, LEAST)), -jnp.inf)

    def inconsistent(carry: tuple[Array, Array]) -> Array:
        return distances(*carry).max() > sigma

    def drop_worst(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, sums = carry
        far = distances(kept, sums)
        worst = jnp.argmax(far >= far.max() - TIE)
        return kept.at[worst].set(False), sums - similar(worst)

    start = members, _product(features, members.astype(features.dtype) @ features)
    return jax.lax.while_loop(inconsistent, drop_worst, start)[0]
