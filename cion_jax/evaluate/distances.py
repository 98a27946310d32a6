"""Distances between queries and a gallery, some queries at a time: no array of all of them is ever made.

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
    """How far the gallery is from each query."""

    of: Callable[[int, int], Array | np.ndarray]
    """Float32 (stop - start, G) of the queries start to stop."""
    queries: int
    gallery: int
    most: float
    """No distance is larger."""


def cosine(query: np.ndarray, gallery: np.ndarray) -> Distances:
    """1 - cosine of features (Q, D) and (G, D), whatever their lengths."""
    check(query, gallery)
    return _between(unit(query, "query"), unit(gallery, "gallery"), _one_minus_cosine, 2.0)


def euclidean(query: np.ndarray, gallery: np.ndarray) -> Distances:
    """Euclidean distances of features (Q, D) and (G, D)."""
    check(query, gallery)
    longest = sum(float(np.sqrt(np.einsum("nd,nd->n", rows, rows).max())) for rows in (query, gallery))
    return _between(query, gallery, _euclidean, longest * (1 + 1e-5))


def unit(features: np.ndarray, what: str) -> np.ndarray:
    """The features, each divided by its length; one that has none is refused."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(f"{what}: the feature of image {lengths.argmin()} is all 0; embed the images again")
    return features / lengths


def _between(query: np.ndarray, gallery: np.ndarray, rule: Callable[..., Array], most: float) -> Distances:
    mesh = Mesh(np.array(jax.local_devices()), "queries")
    everywhere, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("queries",)))
    searched = jax.device_put(np.asarray(gallery, np.float32), everywhere)
    asked = np.asarray(query, np.float32)

    def of(start: int, stop: int) -> Array:
        rows = asked[start:stop]
        return rule(jax.device_put(rows, everywhere if len(rows) % mesh.size else shared), searched)

    return Distances(of, len(query), len(gallery), most)


def check(query: np.ndarray, gallery: np.ndarray) -> None:
    """Refuse features between which there is no distance."""
    for what, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or not features.size:
            raise UserError(f"{what}: features {features.shape}; a row for each image is needed, and at least one")
        broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(broken):
            raise UserError(
                f"{what}: the feature of image {broken[0]} is not of finite numbers; embed the images again"
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
