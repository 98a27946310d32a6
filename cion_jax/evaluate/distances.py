"""Distances between queries and a gallery, for some queries at a time: all distances are never in memory at once.

The devices of this host share the queries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.errors import UserError


class Distances(NamedTuple):
    """The distances of the gallery from each query, computed when they are asked for."""

    of: Callable[[int, int], Array | np.ndarray]
    """`of(start, stop)`: float32 (stop - start, G), the distances of the queries from start to before stop."""
    queries: int
    """Q, how many queries there are."""
    gallery: int
    """G, how many images the gallery has."""
    upper_bound: float
    """No distance is larger."""


def cosine(query: np.ndarray, gallery: np.ndarray) -> Distances:
    """1 - cosine of features (Q, D) and (G, D) of any lengths."""
    check(query, gallery)
    return _between(unit(query, "query"), unit(gallery, "gallery"), _one_minus_cosine, 2.0)


def euclidean(query: np.ndarray, gallery: np.ndarray) -> Distances:
    """Euclidean distances of features (Q, D) and (G, D)."""
    check(query, gallery)
    longest = sum(float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max())) for rows in (query, gallery))
    return _between(query, gallery, _euclidean, longest * (1 + 1e-5))


def unit(features: np.ndarray, what: str) -> np.ndarray:
    """The features, each divided by its length; a feature that is all 0 is refused."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(f"{what}: the feature of image {lengths.argmin()} is all 0; embed the images again")
    return features / lengths


def _between(query: np.ndarray, gallery: np.ndarray, metric: Callable[..., Array], upper_bound: float) -> Distances:
    mesh = Mesh(np.array(jax.local_devices()), "queries")
    replicated = NamedSharding(mesh, PartitionSpec())
    by_query = NamedSharding(mesh, PartitionSpec("queries"))
    query_QxD = np.asarray(query, np.float32)
    gallery_GxD = jax.device_put(np.asarray(gallery, np.float32), replicated)

    def of(start: int, stop: int) -> Array:
        rows = query_QxD[start:stop]
        divides = len(rows) % mesh.size == 0
        return metric(jax.device_put(rows, by_query if divides else replicated), gallery_GxD)

    return Distances(of, len(query), len(gallery), upper_bound)


def check(query: np.ndarray, gallery: np.ndarray) -> None:
    """Refuse features that have no distances: of other shapes, of two widths, or with values that are not finite."""
    for what, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or not features.size:
            raise UserError(f"{what}: features {features.shape}; a row for each image is needed, and at least one")
        broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(broken):
            raise UserError(
                f"{what}: the feature of image {broken[0]} has NaN or infinite values; embed the images again"
            )
    if query.shape[1] != gallery.shape[1]:
        raise UserError(
            f"queries are {query.shape[1]} wide, the gallery {gallery.shape[1]}; embed both with one network"
        )


def squared_distances(rows: Array, others: Array) -> Array:
    """|a - b|^2 = |a|^2 + |b|^2 - 2 a.b of rows (R, D) and others (N, D), for use inside a jitted function: (R, N)."""
    return jnp.maximum(squares(rows)[:, None] + squares(others) - 2 * _products(rows, others), 0)


def squares(vectors: Array) -> Array:
    """The squared length of each vector (..., D)."""
    return jnp.sum(vectors * vectors, axis=-1)


@jax.jit
def _one_minus_cosine(query: Array, gallery: Array) -> Array:
    return 1 - _products(query, gallery)


@jax.jit
def _euclidean(query: Array, gallery: Array) -> Array:
    return jnp.sqrt(squared_distances(query, gallery))


def _products(rows: Array, others: Array) -> Array:
    return jnp.matmul(rows, others.T, precision=lax.Precision.HIGHEST)  # TPUs would round to bfloat16
