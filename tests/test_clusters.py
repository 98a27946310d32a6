"""Average linkage with cannot-links: SciPy's partition where nothing is forbidden, that of plain loops where it is."""

from itertools import combinations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from cion_jax.denoise.clusters import Clusters, merge_near
from cion_jax.denoise.inputs import TrackedFeatures, arrange
from cion_jax.denoise.levels import merge_until_stable, merge_within_videos
from cion_jax.denoise.near import near
from cion_jax.denoise.noise import members, windows
from cion_jax.denoise.vectors import unit

Merges = list[tuple[float, int, int]]


def one_each(vectors_TxD: np.ndarray, seen_TxS: np.ndarray | None = None, videos: int = 1) -> Clusters:
    """A cluster for each tracklet, which is seen in these frames of its video; -1 where frames are not given."""
    count = len(vectors_TxD)
    seen = np.full((count, 2), -1) if seen_TxS is None else seen_TxS
    tracklet = np.repeat(np.arange(count), seen.shape[1])
    rows = TrackedFeatures(vectors_TxD[tracklet], tracklet * videos // count, tracklet, seen.ravel())
    tracklets = arrange(rows)
    return Clusters(tracklets, members(tracklets.features, tracklets.tracklet), vectors_TxD)


def some_vectors(count: int, seed: int, people: int = 20, width: int = 8) -> np.ndarray:
    """Some near each other, and some between."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((people, width))
    return unit(centers[random.integers(people, size=count)] + 0.8 * random.standard_normal((count, width)))


def all_pairs(count: int) -> np.ndarray:
    return np.array(list(combinations(range(count), 2)), int).reshape(-1, 2)


def near_pairs(clusters: Clusters, tau: float) -> np.ndarray:
    return clusters.numbers[near(clusters.means, windows(len(clusters.numbers), None), tau)]


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == each).tolist()) for each in np.unique(labels)}


def merged_in_plain_loops(vectors: np.ndarray, forbidden: np.ndarray, tau: float) -> tuple[list[list[int]], Merges]:
    """Of all pairs of clusters that may be linked the closest, again and again."""
    distances = 1 - vectors @ vectors.T
    groups = [[each] for each in range(len(vectors))]
    merges: Merges = []
    while True:
        may = [
            (float(distances[np.ix_(one, other)].mean()), one, other)
            for one, other in combinations(groups, 2)
            if not forbidden[np.ix_(one, other)].any()
        ]
        distance, one, other = min(may, default=(tau, [], []))
        if distance >= tau:
            return groups, merges
        merges.append((distance, one[0], other[0]))
        groups[groups.index(one)] = one + other
        groups.remove(other)


def forbidden_by(clusters: Clusters) -> np.ndarray:
    count = len(clusters.cluster)
    return np.array(
        [[one != other and clusters.cannot_link(one, other) for one in range(count)] for other in range(count)]
    )


@pytest.mark.parametrize("tau", [0.1, 0.4, 0.9, 1.2])
@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_forbidden_it_is_average_linkage(seed: int, tau: float) -> None:
    vectors = some_vectors(120, seed)
    tree = linkage(squareform(1 - vectors @ vectors.T, checks=False), "average")
    clusters = one_each(vectors)
    merge_near(clusters, near_pairs(clusters, tau), tau)
    assert partition(clusters.cluster) == partition(fcluster(tree, tau, "distance"))
    below = tree[tree[:, 2] < tau, 2]
    np.testing.assert_allclose([distance for distance, *_ in clusters.merges], below, atol=1e-12)
    assert len(clusters.numbers) == 120 - len(below)


@pytest.mark.parametrize("tau", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("frames", [6, 20, 60])
def test_with_cannot_links_it_is_the_plain_loop(frames: int, tau: float) -> None:
    vectors = some_vectors(45, frames)
    clusters = one_each(vectors, np.random.default_rng(frames).integers(frames, size=(45, 3)))
    groups, merges = merged_in_plain_loops(vectors, forbidden_by(clusters), tau)
    merge_near(clusters, near_pairs(clusters, tau), tau)
    assert partition(clusters.cluster) == {frozenset(group) for group in groups}
    np.testing.assert_allclose(clusters.merges, np.array(merges).reshape(-1, 3), atol=1e-12)
    free = one_each(vectors)
    merge_near(free, near_pairs(free, tau), tau)
    assert len(free.numbers) < len(clusters.numbers) < 45  # something was merged, and something forbidden


@pytest.mark.parametrize("seed", range(3))
def test_merge_distances_never_fall(seed: int) -> None:
    clusters = one_each(some_vectors(200, seed), np.random.default_rng(seed).integers(400, size=(200, 3)))
    merge_near(clusters, near_pairs(clusters, 0.9), 0.9)
    distances = np.array([distance for distance, *_ in clusters.merges])
    assert len(distances) > 100 and (np.diff(distances) >= -1e-12).all()


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.8])
def test_only_clusters_with_a_pair_of_tracklets_below_tau_are_ever_near(tau: float) -> None:
    """So that looking at those alone, round by round, misses nothing."""
    vectors = some_vectors(100, 7)
    seen = np.random.default_rng(7).integers(80, size=(100, 3))
    distances = 1 - vectors @ vectors.T
    clusters = one_each(vectors, seen)
    whole = one_each(vectors, seen)
    pairs = near_pairs(clusters, tau)
    assert 0 < len(pairs) < 0.9 * len(all_pairs(100))
    merge_near(clusters, pairs, tau)
    merge_near(whole, all_pairs(100), tau)
    assert clusters.merges
    np.testing.assert_allclose(clusters.merges, whole.merges, atol=1e-12)
    for one, other in combinations(clusters.numbers.tolist(), 2):
        parts = distances[np.ix_(clusters.parts[one], clusters.parts[other])]
        assert parts.mean() >= tau or (parts.min() < tau and clusters.cannot_link(one, other))
    before = len(clusters.merges)
    merge_near(clusters, near_pairs(clusters, tau), tau)
    assert len(clusters.merges) == before


@pytest.mark.parametrize("tau", [0.4, 0.8])
def test_sums_sizes_and_frames_are_those_of_the_parts(tau: float) -> None:
    seen = np.random.default_rng(1).integers(200, size=(80, 3))
    clusters = one_each(some_vectors(80, 1), seen)
    merge_near(clusters, near_pairs(clusters, tau), tau)
    assert max(clusters.sizes[clusters.numbers]) > 2
    assert sorted(part for number in clusters.numbers for part in clusters.parts[number]) == list(range(80))
    for row, number in enumerate(clusters.numbers.tolist()):
        parts = clusters.parts[number]
        assert (
            number == min(parts) and set(clusters.cluster[parts]) == {number} and clusters.sizes[number] == len(parts)
        )
        np.testing.assert_allclose(clusters.means[row], clusters.vectors[parts].mean(axis=0), atol=1e-12)
        frames = np.unique(seen[parts])
        assert len(clusters.frame_keys[number]) == len(frames) == sum(len(np.unique(seen[part])) for part in parts)
        assert set(clusters.labels()[np.isin(clusters.home, parts)]) == {number}


def test_a_video_is_merged_before_others_are_looked_at() -> None:
    vectors = some_vectors(60, 3, people=6)
    clusters = one_each(vectors, videos=3)
    merge_within_videos(clusters, 0.6)
    expected = [
        {
            frozenset(20 * video + each for each in group)
            for group in merged_in_plain_loops(rows, np.zeros((20, 20)), 0.6)[0]
        }
        for video, rows in enumerate(np.split(vectors, 3))
    ]
    assert partition(clusters.cluster) == set().union(*expected)
    before = len(clusters.numbers)
    merge_until_stable(clusters, 0.6)
    assert len(clusters.numbers) < before


@pytest.mark.parametrize("within", [2, 10, 30])
def test_a_range_goes_on_until_nothing_in_it_is_left_to_merge(within: int) -> None:
    vectors = some_vectors(150, 5, people=10)
    seen = np.random.default_rng(5).integers(2000, size=(150, 3))
    clusters = one_each(vectors, seen, videos=5)
    whole = one_each(vectors, seen, videos=5)
    merge_until_stable(clusters, 0.6, within)
    merge_until_stable(whole, 0.6)
    assert len(whole.numbers) <= len(clusters.numbers) < 150 and (
        within > 2 or len(whole.numbers) < len(clusters.numbers)
    )
    rows = clusters.numbers.tolist()
    means = clusters.means
    for first, second in combinations(range(len(rows)), 2):
        if second < first + within and 1 - means[first] @ means[second] < 0.6:
            assert clusters.cannot_link(rows[first], rows[second])
