"""What does clustering without labels cost, which adaptation does each epoch? Time and memory, beside dense arrays.

    pip install -e '.[adapt]' && python -m experiments.benchmarks.jaccard

Features are drawn: each person has a place, and images scatter around it. The dense contestant holds arrays of images x
images, as one writes the definition down; it gets few images, on which both must agree. CPU seconds are those of all
cores together. Memory is the largest that the process had until then, features, JAX and all.
"""

import time
from collections.abc import Callable

import numpy as np
from scipy import sparse
from sklearn.cluster import DBSCAN

from cion_jax.evaluate.clustering_metrics import agreement
from cion_jax.evaluate.distances import unit
from cion_jax.evaluate.jaccard import cluster_sizes, dbscan, jaccard_graph
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident

#: Dimensions in which people differ; the features of networks are wider, but do not fill their width either.
INTRINSIC = 64
MIN_SAMPLES = 4


def main(
    images: int = 50_000,
    width: int = 2048,
    person_images: int = 20,
    noise: float = 1.1,
    eps: float = 0.6,
    dense_images: int = 2_000,
) -> None:
    """Print a Markdown table, and how far both agree.

    Args:
        images: Images that are clustered.
        width: Of a feature.
        person_images: Images of each person.
        noise: Standard deviation of images around their person, if that of people is 1.
        eps: Of DBSCAN.
        dense_images: Images that the dense contestant gets.
    """
    print(f"{environment('jax', 'numpy', 'scipy', 'scikit-learn')}\n")
    print(f"{width}-d, {person_images} images a person, noise {noise}, eps {eps}\n")
    print("| | images | seconds | CPU seconds | peak memory, GiB | pairs | clusters | outliers | F1 |")
    print("|---|---|---|---|---|---|---|---|---|")

    def ours(features: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        graph = jaccard_graph(features, eps=eps)
        return graph, dbscan(graph, eps, MIN_SAMPLES)

    def dense(features: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        distance_NxN = dense_distances(features)
        labels = DBSCAN(eps=eps, min_samples=MIN_SAMPLES, metric="precomputed").fit_predict(distance_NxN)
        row, column = np.nonzero(distance_NxN <= eps)
        return sparse.csr_array((distance_NxN[row, column], (row, column)), shape=distance_NxN.shape), labels

    _row("ours", ours, *draw(images, width, person_images, noise))
    few = draw(dense_images, width, person_images, noise)
    graph, labels = _row("ours", ours, *few)
    expected, expected_labels = _row("dense", dense, *few)
    equal = "equal" if np.array_equal(labels, expected_labels) else "NOT EQUAL"
    print(
        f"\n{dense_images:,} images: distances differ by at most {abs(graph - expected).max():.1e}, labels are {equal}"
    )


def draw(images: int, width: int, person_images: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors, float32 (images, width), and whom each image shows."""
    random = np.random.default_rng(0)
    identity = random.permutation(images) // person_images
    people = random.standard_normal((identity.max() + 1, INTRINSIC), np.float32)
    places = people[identity] + noise * random.standard_normal((images, INTRINSIC), np.float32)
    return unit(places @ random.standard_normal((INTRINSIC, width), np.float32), "features"), identity


def _row(
    name: str,
    work: Callable[[np.ndarray], tuple[sparse.csr_array, np.ndarray]],
    features: np.ndarray,
    identity: np.ndarray,
) -> tuple[sparse.csr_array, np.ndarray]:
    """Measure a contestant and print its row; what it returned."""
    began, cpu_began = time.perf_counter(), time.process_time()
    graph, labels = work(features)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    cells = [name, f"{len(features):,}", f"{seconds:,.1f}", f"{cpu:,.1f}", f"{resident('VmHWM') / 2**30:.2f}"]
    cells += [f"{graph.nnz:,}", f"{len(cluster_sizes(labels)):,}", f"{np.sum(labels < 0):,}"]
    print(f"| {' | '.join(cells)} | {agreement(labels, identity).f1:.3f} |", flush=True)
    return graph, labels


def dense_distances(features: np.ndarray, k1: int = 30, k2: int = 6) -> np.ndarray:
    """The Jaccard distances of `evaluate/jaccard.py`, as one writes them down: float64 (N, N), all arrays as large."""
    features = features.astype(float)
    distance = 2 - 2 * features @ features.T
    rank = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(k: int) -> np.ndarray:
        is_near = np.zeros(distance.shape, bool)
        np.put_along_axis(is_near, rank[:, :k], True, axis=1)
        return is_near & is_near.T

    near = reciprocal(k1)
    half = reciprocal(round(k1 / 2) + 1)
    shared = near.astype(float) @ half  # of image i and candidate c: how many of half(c) are near i
    joins = near & (3 * shared > 2 * half.sum(axis=0))
    members = near | (joins.astype(float) @ half > 0)
    weights = np.where(members, np.exp(-distance), 0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    if k2 > 1:
        weights = weights[rank[:, :k2]].mean(axis=1)
    common = np.stack([np.minimum(row, weights).sum(axis=1) for row in weights])
    result = np.maximum(1 - common / (2 - common), 0)
    np.fill_diagonal(result, 0)
    return result


if __name__ == "__main__":
    command(main)
