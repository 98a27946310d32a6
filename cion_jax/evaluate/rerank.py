"""Re-ranking: two images show one person if they are near each other and near the same others (Zhong et al.,
"Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017).

The N images are the queries followed by the gallery; all are treated alike. d is the squared Euclidean distance, each
row divided by its largest value; the ranking of i is all images in order of d(i, j), the nearest first, i included.

    R(i, k) = those among the first k + 1 of i that have i among their own first k + 1
    R*(i)   = R(i, k1), and R(c, k1 / 2) of each c in R(i, k1) of which more than two thirds are in R(i, k1) already
    V(i, j) = exp(-d(i, j)) / (sum of exp(-d(i, m)) over m in R*(i)) for j in R*(i), else 0
    V'(i)   = mean of V(j) over the first k2 of i
    S(q, g) = sum over j of min(V'(q, j), V'(g, j))
    distance(q, g) = (1 - weight) (1 - S / (2 - S)) + weight d(q, g)

Half of an odd k1 is rounded to the even number, as in the authors' code. A row of V has some dozens of values that are
not 0, and only these are kept: no array of N x N or of queries x gallery is made. `jaccard.py` encodes in the same way.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import sparse

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import Distances, check, squared_distances, squares
from cion_jax.evaluate.nearest import nearest
from cion_jax.terminal import Progress, no_progress

#: The smallest divisor: it takes the place of a 0 where all images are alike, and where an image is near no other.
EPSILON = 1e-12
#: Distances are at most 1, apart from rounding.
UPPER_BOUND = 1 + 1e-5
#: Rows of V whose members' features are gathered at a time: so few fit a cache, which is five times as fast.
ROWS_AT_ONCE = 16


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

    The call itself compares all images with one another. The distances that it returns are then computed about as fast
    as plain ones.

    Args:
        query: Features of the queries (Q, D).
        gallery: Features of the gallery (G, D).
        k1: How many others count as near to an image; fewer than Q + G.
        k2: Over how many images V is averaged, at most k1 + 1; 1 leaves V as it is.
        weight: The share of the plain distance, from 0 to 1; the paper calls it lambda.
        block: Images that are compared together. Beside features and V, memory holds a few arrays of block x (Q + G).
        progress: Called with the number of further images whose neighbours are found, Q + G in the end; this takes
            most of the time.
    """
    check(query, gallery)
    _check_settings(k1, k2, weight, len(query) + len(gallery))
    query = np.asarray(query, np.float32)
    gallery = np.asarray(gallery, np.float32)
    features = np.concatenate([query, gallery])
    neighbours = nearest(features, features, k1 + 1, block=block, progress=progress)
    encoding_NxN = encode(features, neighbours.index, k1, neighbours.farthest, block)  # V
    if k2 > 1:
        encoding_NxN = average(encoding_NxN, neighbours.index[:, :k2])  # V'
    query_encoding = encoding_NxN[: len(query)]
    gallery_encoding = encoding_NxN[len(query) :].tocsc()
    farthest_Q = neighbours.farthest[: len(query)]
    gallery_GxD = jnp.asarray(gallery)

    def of_queries(start: int, stop: int) -> Array:
        common_BxG = common(query_encoding[start:stop], gallery_encoding)
        return _blend(common_BxG, query[start:stop], gallery_GxD, farthest_Q[start:stop], weight)

    return Distances(of_queries, len(query), len(gallery), UPPER_BOUND)


def _check_settings(k1: int, k2: int, weight: float, images: int) -> None:
    if not 1 <= k1 < images:
        raise UserError(f"k1 {k1}: must be from 1 to {images - 1}, one less than queries and gallery together")
    if not 1 <= k2 <= k1 + 1:
        raise UserError(f"k2 {k2}: must be from 1 to k1 + 1, which is {k1 + 1}")
    if not 0 <= weight <= 1:
        raise UserError(f"weight {weight}: must be from 0, for the new distance alone, to 1, for the plain one alone")


def encode(
    features: np.ndarray,
    rank_NxK: np.ndarray,
    k1: int,
    divisor_N: np.ndarray,
    block: int,
) -> sparse.csr_array:
    """V (N, N).

    Args:
        features: (N, D) float32.
        rank_NxK: The first K of each image, among which those of R(i, k1) are.
        k1: Those of R(i, k1 / 2) are among the first k1 / 2 + 1.
        divisor_N: What the squared distances of each image are divided by.
        block: Images that are encoded together.
    """
    on_device = jnp.asarray(features), jnp.asarray(rank_NxK), jnp.asarray(divisor_N)
    counts = []
    members = []
    values = []
    for start in range(0, len(features), block):
        rows = np.arange(start, min(start + block, len(features)))
        padded = np.pad(rows, (0, block - len(rows)))  # so that one program serves all blocks
        member_BxM, value_BxM = (np.asarray(part)[: len(rows)] for part in _encode_block(padded, *on_device, k1))
        counts.append(np.count_nonzero(value_BxM, axis=1))
        members.append(member_BxM[value_BxM > 0])
        values.append(value_BxM[value_BxM > 0])
    bounds = np.cumsum(np.concatenate([[0], *counts]))
    return sparse.csr_array((np.concatenate(values), np.concatenate(members), bounds), shape=(len(features),) * 2)


@partial(jax.jit, static_argnums=4)
def _encode_block(rows: Array, features: Array, rank_NxK: Array, divisor_N: Array, k1: int) -> tuple[Array, Array]:
    """V of the rows (B,): the numbers of their members in rising order, (B, M), and the values, 0 for no member."""
    member_BxM = jnp.sort(_members(rows, rank_NxK, k1), axis=1)
    is_repeated = jnp.diff(member_BxM, prepend=-1) == 0
    is_member = (member_BxM < len(rank_NxK)) & ~is_repeated
    distance_BxM = lax.map(
        lambda one: squares(features[one[0]] - features[one[1]]),
        (rows, member_BxM),
        batch_size=ROWS_AT_ONCE,
    )
    value_BxM = jnp.where(is_member, jnp.exp(-_relative(distance_BxM, divisor_N[rows])), 0)
    return member_BxM, value_BxM / jnp.maximum(value_BxM.sum(axis=1, keepdims=True), EPSILON)


def _members(rows: Array, rank_NxK: Array, k1: int) -> Array:
    """R* of the rows (B,), in no order and with repetitions, (B, M); N stands for no member."""
    no_member = len(rank_NxK)
    half = round(k1 / 2)
    near_BxK, mutual_BxK = _reciprocal(rows, rank_NxK)
    members_BxK = jnp.where(mutual_BxK, near_BxK, no_member)  # R(i, k1)
    # R(c, k1 / 2) of each c among the first of i, and which of these images are in R(i, k1).
    theirs_BxKxH, mutual_BxKxH = _reciprocal(near_BxK, rank_NxK[:, : half + 1])
    same_BxKxHxK = theirs_BxKxH[..., None] == members_BxK[:, None, None]
    shared_BxKxH = mutual_BxKxH & same_BxKxHxK.any(axis=-1)
    # R(c, k1 / 2) joins if c is in R(i, k1) and if more than two thirds are shared.
    joins_BxK = mutual_BxK & (3 * shared_BxKxH.sum(axis=-1) > 2 * mutual_BxKxH.sum(axis=-1))
    joining_BxKxH = jnp.where(joins_BxK[..., None] & mutual_BxKxH, theirs_BxKxH, no_member)
    return jnp.concatenate([members_BxK, joining_BxKxH.reshape(len(rows), -1)], axis=1)


def _reciprocal(images: Array, rank_NxK: Array) -> tuple[Array, Array]:
    """The first K of each image, (..., K), and whether it is among the first K of theirs."""
    near = rank_NxK[images]
    return near, (rank_NxK[near] == images[..., None, None]).any(axis=-1)


def _relative(distance: Array, divisor: Array) -> Array:
    """d: squared distances, each row divided by its divisor: its largest value, if this is for re-ranking."""
    return distance / jnp.maximum(divisor, EPSILON)[:, None]


def average(encoding_NxN: sparse.csr_array, first_NxK: np.ndarray) -> sparse.csr_array:
    """V': the mean of V over the first K of each image: a product with a sparse matrix that has 1 / K at these K."""
    images, count = first_NxK.shape
    equal = np.full(first_NxK.size, 1 / count, np.float32)
    bounds = count * np.arange(images + 1)
    return sparse.csr_array((equal, first_NxK.ravel(), bounds), shape=encoding_NxN.shape) @ encoding_NxN


def common(query: sparse.csr_array, gallery: sparse.csc_array) -> np.ndarray:
    """S (B, G), from V' of some queries (B, N) in rows and of the gallery (G, N) in columns.

    Each value of a query meets all values of the gallery in its column: these meetings are laid out one after the
    other, and the smaller values of all meetings are summed by query and image.
    """
    meetings = np.diff(gallery.indptr)[query.indices]  # of each value of a query
    value = np.repeat(np.arange(query.nnz), meetings)  # which value of a query is in each meeting
    # The k-th meeting of a value is with the k-th value of the column.
    first_in_column = gallery.indptr[query.indices]
    first_meeting = np.cumsum(meetings) - meetings
    other = np.arange(len(value)) + (first_in_column - first_meeting)[value]  # which value of the gallery
    row = np.repeat(np.arange(query.shape[0]), np.diff(query.indptr))[value]
    smaller = np.minimum(query.data[value], gallery.data[other])
    shape = (query.shape[0], gallery.shape[0])
    return sparse.coo_array((smaller, (row, gallery.indices[other])), shape=shape).toarray()


@jax.jit
def _blend(common_BxG: Array, rows: Array, gallery: Array, farthest: Array, weight: float) -> Array:
    """The distance of the formula, from S and from plain distances."""
    jaccard_BxG = 1 - common_BxG / (2 - common_BxG)
    plain_BxG = _relative(squared_distances(rows, gallery), farthest)
    return (1 - weight) * jaccard_BxG + weight * plain_BxG
