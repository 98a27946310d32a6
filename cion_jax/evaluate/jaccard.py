"""Clusters of images without labels, for adaptation: Jaccard distances of k-reciprocal encodings, and DBSCAN on them.

This is the clustering of cluster contrast (Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification",
ACCV 2022), which encodes images as `rerank.py` does, with three differences: the image itself is one of its k1 nearest,
d is the squared distance of unit vectors as it is, and there are no queries: N images are compared with one another.

    R(i, k) = those among the first k of i that have i among their own first k
    R*(i)   = R(i, k1), and R(c, k1 / 2 + 1) of each c in R(i, k1) of which more than two thirds are in R(i, k1) already
    V(i, j) = exp(-d(i, j)) / (sum of exp(-d(i, m)) over m in R*(i)) for j in R*(i), else 0
    V'(i)   = mean of V(j) over the first k2 of i
    S(i, j) = sum over m of min(V'(i, m), V'(j, m))
    distance(i, j) = max(1 - S / (2 - S), 0)

Nearly all pairs share nothing and are at distance 1. The others are a sparse graph, all that DBSCAN needs.
"""

import numpy as np
from scipy import sparse

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import unit
from cion_jax.evaluate.embed import not_unit
from cion_jax.evaluate.nearest import nearest
from cion_jax.evaluate.rerank import average, common, encode
from cion_jax.terminal import Progress, no_progress


def jaccard_graph(
    features: np.ndarray,
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 1.0,
    block: int = 256,
    progress: Progress = no_progress,
) -> sparse.csr_array:
    """The Jaccard distances of all pairs of images that are near each other: a sparse float32 matrix (N, N).

    It is symmetric. A pair that it does not hold is further apart than `eps`, or shares nothing, which is distance 1.
    A pair at distance 0 is held as a 0, and each image is at distance 0 from itself.

    Args:
        features: Unit vectors (N, D).
        k1: How many are near to an image, itself included, from 1 to N.
        k2: Over how many of them V is averaged, from 1 to k1; 1 leaves V as it is.
        eps: The largest distance that is kept, above 0 and at most 1; give the eps of `dbscan`, and memory is saved.
        block: Images that are compared together. Beside features, V and the graph, memory holds a few arrays of
            block x N.
        progress: Called with the number of further images whose neighbours are found, N in the end; this takes most of
            the time.
    """
    features = np.asarray(features, np.float32)
    _check(features, k1, k2, eps)
    rank_NxK = nearest(features, features, k1, block=block, progress=progress).index
    encoding_NxN = encode(features, rank_NxK, k1, np.ones(len(features), np.float32), block)  # V
    if k2 > 1:
        encoding_NxN = average(encoding_NxN, rank_NxK[:, :k2])  # V'
        encoding_NxN.sort_indices()  # so that S(i, j) and S(j, i) are sums in one order
    columns = encoding_NxN.tocsc()
    starts = range(0, len(features), block)
    return sparse.vstack([_near(encoding_NxN[start : start + block], columns, start, eps) for start in starts], "csr")


def _check(features: np.ndarray, k1: int, k2: int, eps: float) -> None:
    if features.ndim != 2:
        raise UserError(f"features {features.shape}: a row for each image is needed")
    broken = not_unit(features)
    if len(broken):
        raise UserError(
            f"features: that of image {broken[0]} has NaN or another length than 1; "
            "divide each by its length, or embed the images again"
        )
    if not 1 <= k1 <= len(features):
        raise UserError(f"k1 {k1}: must be from 1 to {len(features)}, the number of images")
    if not 1 <= k2 <= k1:
        raise UserError(f"k2 {k2}: must be from 1 to k1, which is {k1}")
    if not 0 < eps <= 1:
        raise UserError(f"eps {eps}: must be above 0 and at most 1, the largest Jaccard distance")


def _near(rows: sparse.csr_array, columns: sparse.csc_array, start: int, eps: float) -> sparse.csr_array:
    """The rows of the graph (B, N) of the images from start on, from their V' (B, N) and from all columns of V'."""
    common_BxN = common(rows, columns)  # S
    own = np.arange(len(common_BxN))
    common_BxN[own, start + own] = 1  # an image shares all with itself, whatever is rounded
    row, column = np.nonzero(common_BxN)
    shared = common_BxN[row, column]
    distance = np.maximum(1 - shared / (2 - shared), 0)
    is_near = distance <= eps
    return sparse.csr_array((distance[is_near], (row[is_near], column[is_near])), shape=common_BxN.shape)


def dbscan(graph: sparse.csr_array, eps: float, min_samples: int = 4) -> np.ndarray:
    """The cluster of each image by DBSCAN, (N,): from 0 on, without a gap; -1 is an outlier, which is in no cluster.

    Whether the clusters are of use is for the caller to judge: see `cluster_sizes`.

    Args:
        graph: From `jaccard_graph`, with at least this eps.
        eps: The largest distance of neighbours, between 0 and 1. Published: 0.6 for Market-1501, 0.7 for MSMT17.
        min_samples: The fewest neighbours, itself included, of an image that makes a cluster grow.
    """
    if not 0 < eps < 1:
        raise UserError(f"eps {eps}: must be between 0 and 1; pairs that share nothing are at distance 1")
    if min_samples < 1:
        raise UserError(f"min_samples {min_samples}: must be at least 1, the image itself")
    try:
        from sklearn.cluster import DBSCAN
        from sklearn.neighbors import sort_graph_by_row_values
    except ImportError:
        raise UserError("DBSCAN: scikit-learn is not installed; `pip install 'cion-jax[adapt]'`") from None
    # scikit-learn 1.5 does not sort, and warns.
    by_distance = sort_graph_by_row_values(graph, copy=True, warn_when_not_sorted=False)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(by_distance)


def cluster_sizes(labels: np.ndarray) -> np.ndarray:
    """How many images each cluster has, (C,). Its length is the number of clusters; the other images are outliers."""
    return np.bincount(labels[labels >= 0])


def cluster_centers(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean feature of each cluster, divided by its length: float32 (C, D).

    Args:
        features: (N, D).
        labels: (N,) from `dbscan`; outliers count for nothing.
    """
    if features.shape[:1] != labels.shape:
        raise UserError(f"{len(labels):,} labels for {len(features):,} features; give one for each")
    (members,) = np.nonzero(labels >= 0)
    shape = (len(cluster_sizes(labels)), len(labels))
    is_member_CxN = sparse.csr_array((np.ones(len(members), np.float32), (labels[members], members)), shape=shape)
    return unit(is_member_CxN @ np.asarray(features, np.float32), "centers")  # a sum has the direction of the mean
