"""Re-ranking: equal to the definition in loops and sets, whatever the blocks; nearest: equal to sorting."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import Distances, check
from cion_jax.evaluate.nearest import nearest
from cion_jax.evaluate.rerank import reranked

QUERIES = 13


def people(seed: int, images: int = 90) -> np.ndarray:
    """Unit vectors in groups of about six that touch each other."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((images // 6, 8))[random.integers(images // 6, size=images)]
    vectors += 0.6 * random.standard_normal((images, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def corners(seed: int, images: int = 90) -> np.ndarray:
    """Some corners of a cube, most more than once: all distances are whole numbers, and nearly all are ties."""
    return np.random.default_rng(seed).choice(np.float32([-1, 1]), (images, 5))


def squared(vectors: np.ndarray) -> np.ndarray:
    """All squared distances, float64."""
    wide = vectors.astype(float)
    return np.square(wide[:, None] - wide).sum(axis=2)


def plainly(vectors: np.ndarray, queries: int, k1: int, k2: int, weight: float) -> np.ndarray:
    """The definition, with loops and sets, float64."""
    distance = squared(vectors)
    distance /= distance.max(axis=1, keepdims=True)
    everybody = range(len(vectors))
    rank = [sorted(everybody, key=lambda j, i=i: (distance[i, j], j)) for i in everybody]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in rank[i][: k + 1] if i in rank[j][: k + 1]}

    shares = np.zeros_like(distance)
    for i in everybody:
        near = reciprocal(i, k1)
        members = set(near)
        for c in near:
            theirs = reciprocal(c, round(k1 / 2))
            if 3 * len(theirs & near) > 2 * len(theirs):
                members |= theirs
        for j in members:
            shares[i, j] = np.exp(-distance[i, j]) / sum(np.exp(-distance[i, m]) for m in members)
    if k2 > 1:
        shares = np.stack([np.mean([shares[j] for j in rank[i][:k2]], axis=0) for i in everybody])
    jaccard = np.empty((queries, len(vectors) - queries))
    for q in range(queries):
        for g in range(queries, len(vectors)):
            common = np.minimum(shares[q], shares[g]).sum()
            jaccard[q, g - queries] = 1 - common / (2 - common)
    return (1 - weight) * jaccard + weight * distance[:queries, queries:]


def whole(distances: Distances, step: int = QUERIES) -> np.ndarray:
    """All distances, some rows at a time."""
    return np.concatenate([distances.of(start, start + step) for start in range(0, QUERIES, step)])


def of(features: np.ndarray, **settings) -> Distances:
    """Re-ranked, the first being queries."""
    return reranked(features[:QUERIES], features[QUERIES:], **settings)


SETTINGS = [(20, 6, 0.3), (5, 3, 0.3), (7, 1, 0.5), (6, 7, 0.0), (1, 1, 0.2), (1, 2, 0.0), (5, 3, 1.0)]


@pytest.mark.parametrize("vectors", [people, corners])
@pytest.mark.parametrize(("k1", "k2", "weight"), SETTINGS)
def test_equal_to_the_definition(vectors: Callable[[int], np.ndarray], k1: int, k2: int, weight: float) -> None:
    for seed in range(2):
        features = vectors(seed)
        expected = plainly(features, QUERIES, k1, k2, weight)
        assert expected.std() > 0.01
        distances = of(features, k1=k1, k2=k2, weight=weight)
        computed = whole(distances)
        np.testing.assert_allclose(computed, expected, atol=1e-5)
        assert computed.dtype == np.float32 and computed.shape == (distances.queries, distances.gallery)
        assert 0.9 * distances.upper_bound < expected.max() <= distances.upper_bound


def test_so_few_images_that_all_are_near() -> None:
    features = people(0, 18)
    np.testing.assert_allclose(whole(of(features, k1=17, k2=6)), plainly(features, QUERIES, 17, 6, 0.3), atol=1e-5)


def test_blocks_and_types_change_nothing() -> None:
    features, counted = people(3), []
    expected = whole(of(features))
    for block in (1, 16):
        np.testing.assert_allclose(whole(of(features, block=block, progress=counted.append)), expected, atol=1e-6)
        assert sum(counted) == len(features) and max(counted) <= block
        counted.clear()
    for step in (1, 50):
        np.testing.assert_allclose(whole(of(features.astype(float)), step), expected, atol=1e-6)


def test_the_order_of_the_gallery_does_not_matter() -> None:
    features = people(4)
    order = np.random.default_rng(0).permutation(len(features) - QUERIES)
    shuffled = np.concatenate([features[:QUERIES], features[QUERIES:][order]])
    np.testing.assert_allclose(whole(of(shuffled)), whole(of(features))[:, order], atol=1e-6)


def test_images_that_are_all_alike() -> None:
    """All are at one place; but unless V is averaged, those behind the first k1 + 1 of all share nothing."""
    features = np.ones((40, 8), np.float32)
    np.testing.assert_allclose(whole(of(features)), 0, atol=1e-6)
    behind = np.arange(QUERIES, 40) > 20
    np.testing.assert_allclose(whole(of(features, k2=1)), np.tile(0.7 * behind, (QUERIES, 1)), atol=1e-6)


def test_all_distances_are_never_there_at_once() -> None:
    features, queries = people(0, 2400), 1200
    tracemalloc.start()
    distances = reranked(features[:queries], features[queries:], k1=5, k2=2, block=32)
    for start in range(0, queries, 32):
        distances.of(start, start + 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * queries * (len(features) - queries)  # bytes: half of what the distances would take


@pytest.mark.parametrize("vectors", [people, corners])
@pytest.mark.parametrize(("count", "block"), [(1, 256), (10, 7), (90, 90)])
def test_nearest_is_what_sorting_finds(vectors: Callable[[int], np.ndarray], count: int, block: int) -> None:
    """And of equals the first."""
    features = vectors(5)
    neighbours = nearest(features[:40], features, count, block=block)
    distance = squared(features)[:40]
    order = np.argsort(distance, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(neighbours.index, order)
    np.testing.assert_allclose(neighbours.distance, np.take_along_axis(distance, order, axis=1), atol=1e-5)
    np.testing.assert_allclose(neighbours.farthest, distance.max(axis=1), rtol=1e-5)
    assert [array.dtype for array in vars(neighbours).values()] == [np.int32, np.float32, np.float32]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k1": 0}, "k1 0: must be from 1 to 89"),
        ({"k1": 90}, "k1 90: must be from 1 to 89"),
        ({"k2": 0}, "k2 0: must be from 1 to k1"),
        ({"k1": 4}, "k2 6: must be from 1 to k1 . 1, which is 5"),
        ({"weight": -0.1}, "weight -0.1: must be from 0"),
        ({"weight": 1.5}, "weight 1.5: must be from 0"),
        ({"weight": float("nan")}, "weight nan: must be from 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        of(people(0), **settings)


UNIT = people(0)[:4]


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (UNIT, UNIT[:, :3], "queries are 8 wide, the gallery 3"),
        (UNIT[:0], UNIT, r"query: features \(0, 8\); a row"),
        (UNIT, UNIT[0], r"gallery: features \(8,\); a row"),
        (UNIT, UNIT * np.float32([[1], [1], [np.nan], [1]]), "gallery: the feature of image 2 has NaN or infinite"),
        (UNIT * np.inf, UNIT, "query: the feature of image 0 has NaN or infinite"),
    ],
)
def test_features_without_distances_are_refused(query: np.ndarray, gallery: np.ndarray, message: str) -> None:
    for refuse in (check, reranked, lambda query, gallery: nearest(query, gallery, 1)):
        with pytest.raises(UserError, match=message):
            refuse(query, gallery)


@pytest.mark.parametrize("count", [0, 5])
def test_there_are_not_so_many_nearest(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} nearest of 4 features: give a count from 1 to 4"):
        nearest(UNIT, UNIT, count)
