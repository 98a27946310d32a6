"""Re-ranking: two images show one person if they are near each other and near the same others (Zhong et al.,
"Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017).

All N images, the queries before the gallery, are treated alike. d is the squared Euclidean distance, each row divided
by the largest in it; the rank of i is all images in order of d(i, j), the nearest first, i itself among them.

    R(i, k) = those among the first k + 1 of i that have i among their own first k + 1
    R*(i)   = R(i, k1) and R(c, k1 / 2) of each c in it, if more than two thirds of that are in R(i, k1) already
    V(i, j) = exp(-d(i, j)) / (sum over R*(i)) for j in R*(i), else 0
    V'(i)   = mean of V(j) over the first k2 of i
    S(q, g) = sum over j of min(V'(q, j), V'(g, j))
    distance(q, g) = (1 - weight) (1 - S / (2 - S)) + weight d(q, g)

Half of an odd k1 is rounded to the even number, as in the authors' code. A row of V has some dozens of numbers that are
not 0, and only these are kept: nothing of the size N x N or queries x gallery is ever there.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import sparse

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import Distances, check, squared_distances, squares
from cion_jax.evaluate.nearest import nearest
from cion_jax.terminal import Progress, no_progress

#: Where all images are alike, and where an image is near nobody, 0 is divided by this and not by 0.
LEAST = 1e-12
#: No distance is larger than 1, but for rounding.
MOST = 1 + 1e-5
#: Rows of V whose members' features lie beside each other at a time: they fit a cache, which is five times as fast.
TOGETHER = 16


def reranked(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    block: int = 256,
    progress: Progress = no_progress,
) -> Distances:
    """Distances after re-ranking, for `retrieval.search`.

    The call looks at the distances between all images; what it returns is about as fast as plain distances.

    Args:
        query: Features of the queries (Q, D).
        gallery: Features of the gallery (G, D).
        k1: How many others are near an image; fewer than Q + G.
        k2: Over how many images V is averaged, at most k1 + 1; 1 leaves V as it is.
        weight: The share of the plain distance, from 0 to 1; the paper calls it lambda.
        block: Images that are looked at together; beside features and V nothing is larger than block x (Q + G).
        progress: Called with the number of further images whose neighbours are found, which takes most of the time;
            in the end they are Q + G.
    """
    check(query, gallery)
    _check_settings(k1, k2, weight, len(query) + len(gallery))
    query, gallery = (np.asarray(features, np.float32) for features in (query, gallery))
    features = np.concatenate([query, gallery])
    near = nearest(features, features, k1 + 1, block=block, progress=progress)
    shares = _shares(features, near.index, near.farthest, block)
    if k2 > 1:
        shares = _averaged(shares, near.index[:, :k2])
    asking, asked, farthest = shares[: len(query)], shares[len(query) :].tocsc(), near.farthest[: len(query)]
    on_device = jnp.asarray(gallery)

    def of_queries(start: int, stop: int) -> Array:
        common_BxG = _common(asking[start:stop], asked)
        return _blend(common_BxG, query[start:stop], on_device, farthest[start:stop], weight)

    return Distances(of_queries, len(query), len(gallery), MOST)


def _check_settings(k1: int, k2: int, weight: float, images: int) -> None:
    if not 1 <= k1 < images:
        raise UserError(f"k1 {k1}: must be from 1 to {images - 1}, one less than queries and gallery together")
    if not 1 <= k2 <= k1 + 1:
        raise UserError(f"k2 {k2}: must be from 1 to k1 + 1, which is {k1 + 1}")
    if not 0 <= weight <= 1:
        raise UserError(f"weight {weight}: must be from 0, for the new distance alone, to 1, for the plain one alone")


def _shares(features: np.ndarray, rank_NxK: np.ndarray, farthest: np.ndarray, block: int) -> sparse.csr_array:
    """V (N, N)."""
    on_device = jnp.asarray(features), jnp.asarray(rank_NxK), jnp.asarray(farthest)
    counts, members, values = [], [], []
    for start in range(0, len(features), block):
        rows = np.arange(start, min(start + block, len(features)))
        padded = np.pad(rows, (0, block - len(rows)))  # all blocks are one program
        member, value = (np.asarray(part)[: len(rows)] for part in _shares_block(padded, *on_device))
        counts.append(np.count_nonzero(value, axis=1))
        members.append(member[value > 0])
        values.append(value[value > 0])
    bounds = np.cumsum(np.concatenate([[0], *counts]))
    return sparse.csr_array((np.concatenate(values), np.concatenate(members), bounds), shape=(len(features),) * 2)


@jax.jit
def _shares_block(rows: Array, features: Array, rank_NxK: Array, farthest: Array) -> tuple[Array, Array]:
    """V of the rows (B,): whose places (B, M), in order, and what is there, 0 where nobody is."""
    members = jnp.sort(_members(rows, rank_NxK), axis=1)
    is_one = (members < len(rank_NxK)) & (jnp.diff(members, prepend=-1) > 0)  # each once
    distance = lax.map(
        lambda one: squares(features[one[0]] - features[one[1]]),
        (rows, members),
        batch_size=TOGETHER,
    )
    value = jnp.where(is_one, jnp.exp(-_relative(distance, farthest[rows])), 0)
    return members, value / jnp.maximum(value.sum(axis=1, keepdims=True), LEAST)


def _members(rows: Array, rank_NxK: Array) -> Array:
    """R* of the rows (B,), in some order, some more than once, (B, M); N stands for nobody."""
    nobody, half = len(rank_NxK), round((rank_NxK.shape[1] - 1) / 2)
    near_BxK, mutual_BxK = _reciprocal(rows, rank_NxK)
    theirs_BxKxH, mutual_BxKxH = _reciprocal(near_BxK, rank_NxK[:, : half + 1])
    same_BxKxHxK = theirs_BxKxH[..., None] == jnp.where(mutual_BxK, near_BxK, nobody)[:, None, None]
    both_BxKxH = mutual_BxKxH & same_BxKxHxK.any(axis=-1)
    joins_BxK = mutual_BxK & (3 * both_BxKxH.sum(axis=-1) > 2 * mutual_BxKxH.sum(axis=-1))
    joining_BxKxH = jnp.where(joins_BxK[..., None] & mutual_BxKxH, theirs_BxKxH, nobody)
    return jnp.concatenate([jnp.where(mutual_BxK, near_BxK, nobody), joining_BxKxH.reshape(len(rows), -1)], axis=1)


def _reciprocal(images: Array, rank_NxK: Array) -> tuple[Array, Array]:
    """The first K of each image (..., K), and whether it is among the first K of theirs."""
    near = rank_NxK[images]
    return near, (rank_NxK[near] == images[..., None, None]).any(axis=-1)


def _relative(distance: Array, farthest: Array) -> Array:
    return distance / jnp.maximum(farthest, LEAST)[:, None]


def _averaged(shares: sparse.csr_array, first_NxK: np.ndarray) -> sparse.csr_array:
    """V': the mean of V over the first K of each image."""
    images, count = first_NxK.shape
    equal = np.full(first_NxK.size, 1 / count, np.float32)
    return sparse.csr_array((equal, first_NxK.ravel(), count * np.arange(images + 1)), shape=shares.shape) @ shares


def _common(asking: sparse.csr_array, asked: sparse.csc_array) -> np.ndarray:
    """S (B, G) from V' of some queries (B, N) and of the gallery (G, N): each number meets those of its column."""
    meets = np.diff(asked.indptr)[asking.indices]
    number = np.repeat(np.arange(asking.nnz), meets)
    first = asked.indptr[asking.indices] - (np.cumsum(meets) - meets)
    other = np.arange(len(number)) + first[number]
    row = np.repeat(np.arange(asking.shape[0]), np.diff(asking.indptr))[number]
    least = np.minimum(asking.data[number], asked.data[other])
    return sparse.coo_array((least, (row, asked.indices[other])), shape=(asking.shape[0], asked.shape[0])).toarray()


@jax.jit
def _blend(common_BxG: Array, rows: Array, gallery: Array, farthest: Array, weight: float) -> Array:
    jaccard_BxG = 1 - common_BxG / (2 - common_BxG)
    return (1 - weight) * jaccard_BxG + weight * _relative(squared_distances(rows, gallery), farthest)
