"""Pairs of near vectors: similarities are computed in tiles on the devices of all hosts, and only bits come back."""

from collections import deque
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from cion_jax.errors import UserError
from cion_jax.hosts import all_gather, local_part

#: Rows and columns of a tile, a multiple of 64.
TILE = 1024
#: Vectors whose nearest is sought together.
ROWS = 256
#: Others are filled up to at least so many.
LEAST = 64
#: Tiles for each device that are under way while the host reads what others found.
AHEAD = 2
#: More near pairs would need gigabytes on the host; so many mean that tau is far too large.
MOST = 1 << 24
#: Distances are rounded on the devices: pairs that are a little too far come back too, and the host decides.
SLACK = 1e-5


def near(vectors: np.ndarray, ends: np.ndarray, tau: float) -> np.ndarray:
    """Pairs (i, j), i < j < ends[i], of unit vectors whose distance may be below tau: (pairs, 2), in order.

    `ends` must not fall. There are only a few tiles of similarities at any time.
    """
    parts = [np.empty((0, 2), np.int64)]
    count = 0
    for part in _tile_by_tile(vectors, ends, tau):
        parts.append(part)
        count += len(part)
        if count > MOST:
            break
    pairs = all_gather(np.concatenate(parts))
    if len(pairs) > MOST:
        raise UserError(
            f"more than {MOST:,} pairs of {len(vectors):,} are nearer than tau {tau:.4g}: few would stay apart; "
            "lower tau, or the range"
        )
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _tile_by_tile(vectors: np.ndarray, ends: np.ndarray, tau: float) -> Iterator[np.ndarray]:
    """The near pairs of this host's tiles, a tile for each device at a time."""
    padding = -len(vectors) % TILE
    padded = np.pad(vectors.astype(np.float32), ((0, padding), (0, 0)))
    limits = np.pad(ends, (0, padding))
    on_devices = jnp.asarray(padded), jnp.asarray(limits)
    devices = jax.local_device_count()
    tiles = np.array(local_part(list(_tiles(limits)))).reshape(-1, 2)
    under_way = deque[tuple[np.ndarray, Array]]()
    for first in range(0, len(tiles), devices):
        some = tiles[first : first + devices]
        under_way.append((some, of_tiles(*on_devices, np.resize(some, (devices, 2)), tau)))
        if len(under_way) > AHEAD:
            yield _pairs(*under_way.popleft())
    while under_way:
        yield _pairs(*under_way.popleft())


def _tiles(limits: np.ndarray) -> Iterator[tuple[int, int]]:
    """First row and first column of each tile in which there is a pair."""
    for row in range(0, len(limits), TILE):
        for column in range(row, int(limits[row : row + TILE].max()), TILE):
            yield row, column


def _pairs(tiles: np.ndarray, bits: Array) -> np.ndarray:
    """The pairs (P, 2) whose bits are set."""
    words = np.asarray(bits)[: len(tiles)].view(np.uint64)  # at the end there are fewer tiles than devices
    tile, row, word = np.nonzero(words)  # few are not 0: to unpack all would take longer than the similarities
    which, bit = np.nonzero(np.unpackbits(words[tile, row, word][:, None].view(np.uint8), axis=1))
    return tiles[tile[which]] + np.stack([row[which], 64 * word[which] + bit], axis=1)


@jax.jit
def of_tiles(vectors: Array, limits: Array, tiles: Array, tau: Array) -> Array:
    """Whether the pairs of a tile for each device are near, as bits (devices, TILE, TILE / 8)."""
    mesh = Mesh(np.array(jax.local_devices()), "devices")
    each = PartitionSpec("devices")
    specs = PartitionSpec(), PartitionSpec(), each, PartitionSpec()
    return jax.shard_map(_of_tile, mesh=mesh, in_specs=specs, out_specs=each)(vectors, limits, tiles, tau)


def _of_tile(vectors: Array, limits: Array, tile: Array, tau: Array) -> Array:
    row, column = tile[0]
    # a.b of the rows of the tile with its columns.
    one, other = (jax.lax.dynamic_slice_in_dim(vectors, first, TILE) for first in (row, column))
    similar = jnp.matmul(one, other.T, precision=jax.lax.Precision.HIGHEST)
    # Pairs with i < j < ends[i].
    i, j = row + jnp.arange(TILE)[:, None], column + jnp.arange(TILE)
    inside = (i < j) & (j < jax.lax.dynamic_slice_in_dim(limits, row, TILE)[:, None])
    return jnp.packbits((1 - similar < tau + SLACK) & inside, axis=1)[None]


def nearest(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the others is the most similar to each vector, the first of equals."""
    columns = max(LEAST, 1 << (len(others) - 1).bit_length())  # few shapes, few programs
    padded = jnp.asarray(np.pad(others.astype(np.float32), ((0, columns - len(others)), (0, 0))))
    parts = [
        most_similar(np.pad(rows, ((0, ROWS - len(rows)), (0, 0))), padded, len(others))
        for rows in np.split(vectors.astype(np.float32), range(ROWS, len(vectors), ROWS))
    ]
    return np.concatenate([np.asarray(part) for part in parts])[: len(vectors)]


@jax.jit
def most_similar(vectors: Array, others: Array, count: Array) -> Array:
    """The same for ROWS vectors; of the others only the first `count` are meant, the rest is padding."""
    similar = jnp.matmul(vectors, others.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmax(jnp.where(jnp.arange(len(others)) < count, similar, -jnp.inf), axis=1)
