"""Clustering without labels: equal to the published distances and labels, and to the definition in dense arrays."""

import sys
import tracemalloc
from collections.abc import Callable
from configparser import ConfigParser
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import DBSCAN

from cion_jax.errors import UserError
from cion_jax.evaluate.jaccard import cluster_centers, cluster_sizes, dbscan, jaccard_graph
from cion_jax.evaluate.nearest import nearest
from experiments.benchmarks.jaccard import dense_distances, draw
from golden_weights import golden

#: Ten times the noise of the published float32 distances.
TOLERANCE = 5.8e-6
PUBLISHED: dict[str, dict[str, int]] = {"": {}, "k1_20": {"k1": 20}, "k2_1": {"k2": 1}}


Vectors = Callable[[int], np.ndarray]


def people(seed: int, images: int = 120) -> np.ndarray:
    """Unit vectors in groups of about eight that touch each other."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((images // 8, 8))[random.integers(images // 8, size=images)]
    vectors += 0.6 * random.standard_normal((images, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def corners(seed: int, images: int = 120) -> np.ndarray:
    """Corners of a cube, each many times: their distances are exact in float32, and nearly all are ties."""
    return np.random.default_rng(seed).choice(np.float32([-0.5, 0.5]), (images, 4))


def dense(graph: sparse.csr_array) -> np.ndarray:
    """All distances: those of pairs that the graph does not hold are 1."""
    distance = np.ones(graph.shape, np.float32)
    distance[np.repeat(np.arange(len(distance)), np.diff(graph.indptr)), graph.indices] = graph.data
    return distance


@pytest.mark.parametrize("name", PUBLISHED)
def test_distances_and_labels_equal_the_golden_ones(name: str) -> None:
    recorded = golden("finetune/jaccard")
    graph = jaccard_graph(recorded["features"], **PUBLISHED[name])
    assert isinstance(graph, sparse.csr_array) and graph.dtype == np.float32
    expected = recorded[f"jaccard_rows_{name}" if name else "jaccard"]
    np.testing.assert_allclose(dense(graph)[: len(expected)], expected, atol=TOLERANCE)
    for eps in (0.4, 0.5, 0.6, 0.7):
        labels = recorded[f"labels_{name}_eps{eps}" if name else f"labels_eps{eps}"]
        np.testing.assert_array_equal(dbscan(graph, eps), labels)
        assert len(cluster_sizes(labels)) > 10 and labels.min() == -1


def test_neighbours_and_centers_equal_the_golden_ones() -> None:
    recorded = golden("finetune/jaccard")
    features, labels = recorded["features"], recorded["labels_eps0.6"]
    np.testing.assert_array_equal(nearest(features, features, 30).index, recorded["initial_rank"])
    centers = cluster_centers(features, labels)
    np.testing.assert_allclose(centers, recorded["centers_eps0.6"], atol=1e-6)
    assert centers.dtype == np.float32


@pytest.mark.parametrize("vectors", [people, corners])
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 20), (7, 3), (5, 1), (2, 2), (1, 1)])
def test_equal_to_the_definition(vectors: Vectors, k1: int, k2: int) -> None:
    features = vectors(k1)
    expected = dense_distances(features, k1, k2)
    assert expected.std() > 0.05
    graph = jaccard_graph(features, k1=k1, k2=k2)
    np.testing.assert_allclose(dense(graph), expected, atol=TOLERANCE)
    assert (graph != graph.T).nnz == 0  # to the last bit
    assert graph.data.min() >= 0 and graph.data.max() <= 1


def test_so_few_images_that_all_are_near() -> None:
    features = people(0, 24)
    np.testing.assert_allclose(dense(jaccard_graph(features, k1=24)), dense_distances(features, 24), atol=TOLERANCE)


@pytest.mark.parametrize("vectors", [people, corners])
def test_labels_are_those_of_dense_distances(vectors: Vectors) -> None:
    """Whether the graph holds what is further apart or not; of corners it holds only pairs at distance 0."""
    for seed, eps in product(range(2), (0.2, 0.5, 0.8)):
        features = vectors(seed)
        whole = jaccard_graph(features, k1=8, k2=3)
        near = jaccard_graph(features, k1=8, k2=3, eps=eps)
        assert near.nnz < whole.nnz or not whole.data.any()
        assert near.data.max() <= eps
        before = whole.indices.copy()
        for min_samples in (1, 2, 4, 9):
            expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(dense(whole))
            np.testing.assert_array_equal(dbscan(whole, eps, min_samples), expected)
            np.testing.assert_array_equal(dbscan(near, eps, min_samples), expected)
        np.testing.assert_array_equal(whole.indices, before)  # the graph is as it was


def test_labels_of_drawn_people_are_those_of_the_definition() -> None:
    features, _ = draw(600, 128, 12, 1.2)
    expected = DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(dense_distances(features))
    labels = dbscan(jaccard_graph(features, eps=0.6), 0.6)
    np.testing.assert_array_equal(labels, expected)
    assert len(cluster_sizes(labels)) > 20 and (labels < 0).sum() > 20


def test_blocks_and_types_change_nothing() -> None:
    features, counted = people(3), []
    expected = jaccard_graph(features, k1=9, k2=3)
    for block in (1, 16, 500):
        graph = jaccard_graph(features, k1=9, k2=3, block=block, progress=counted.append)
        np.testing.assert_allclose(dense(graph), dense(expected), atol=1e-6)
        assert sum(counted) == len(features) and max(counted) <= block
        counted.clear()
    np.testing.assert_array_equal(dense(jaccard_graph(features.astype(float), k1=9, k2=3)), dense(expected))


def test_the_order_of_images_does_not_matter() -> None:
    features = people(4)
    order = np.random.default_rng(0).permutation(len(features))
    shuffled = jaccard_graph(features[order], k1=9, k2=3)
    np.testing.assert_allclose(dense(shuffled), dense(jaccard_graph(features, k1=9, k2=3))[order][:, order], atol=1e-6)


def test_all_distances_are_never_there_at_once() -> None:
    features = people(0, 3200)
    tracemalloc.start()
    graph = jaccard_graph(features, k1=5, k2=2, block=32)
    dbscan(graph, 0.6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(features) ** 2  # bytes: half of what the distances would take


def test_centers_are_of_members_alone() -> None:
    features = np.float32([[3, 0], [1, 0], [0, 2], [9, 9], [2, 2]])
    labels = np.array([1, 0, 0, -1, 1])
    np.testing.assert_array_equal(cluster_sizes(labels), [2, 2])
    expected = [[1 / 5**0.5, 2 / 5**0.5], [5 / 29**0.5, 2 / 29**0.5]]
    np.testing.assert_allclose(cluster_centers(features, labels), expected, rtol=1e-6)
    np.testing.assert_allclose(cluster_centers(features.astype(float), labels), expected, rtol=1e-6)
    nobody = np.full(5, -1)
    assert not len(cluster_sizes(nobody)) and cluster_centers(features, nobody).shape == (0, 2)
    with pytest.raises(UserError, match="4 labels for 5 features; give one for each"):
        cluster_centers(features, labels[:4])


FEW = people(0)[:40]


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (FEW, {"k1": 41}, "k1 41: must be from 1 to 40, the number of images"),
        (FEW[:29], {}, "k1 30: must be from 1 to 29, the number of images"),
        (FEW[:0], {}, "k1 30: must be from 1 to 0"),
        (FEW, {"k1": 0}, "k1 0: must be from 1 to 40"),
        (FEW, {"k2": 0}, "k2 0: must be from 1 to k1"),
        (FEW, {"k1": 5}, "k2 6: must be from 1 to k1, which is 5"),
        (FEW, {"eps": 0.0}, "eps 0.0: must be above 0 and at most 1"),
        (FEW, {"eps": 1.1}, "eps 1.1: must be above 0 and at most 1"),
        (FEW, {"eps": float("nan")}, "eps nan: must be above 0"),
        (FEW[0], {}, r"features \(8,\): a row for each image"),
        (2 * FEW, {}, "features: that of image 0 has NaN or another length than 1; divide each by its length"),
        (np.where(np.arange(40)[:, None] == 7, np.nan, FEW), {}, "features: that of image 7 has NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(features: np.ndarray, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        jaccard_graph(features, **settings)


@pytest.mark.parametrize(
    ("eps", "min_samples", "message"),
    [
        (0.0, 4, "eps 0.0: must be between 0 and 1"),
        (1.0, 4, "eps 1.0: must be between 0 and 1; pairs that share nothing are at distance 1"),
        (float("nan"), 4, "eps nan: must be between 0 and 1"),
        (0.6, 0, "min_samples 0: must be at least 1"),
    ],
)
def test_settings_of_dbscan_that_make_no_sense_are_refused(eps: float, min_samples: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dbscan(jaccard_graph(FEW), eps, min_samples)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, by an extra that there is."""
    graph = jaccard_graph(FEW)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"scikit-learn is not installed; `pip install 'cion-jax\[adapt\]'`"):
        dbscan(graph, 0.6)
    setup = ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg")
    assert "scikit-learn" in setup["options.extras_require"]["adapt"]
