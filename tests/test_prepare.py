"""Features made comparable: the video's mean off as far as it is known, an even spectrum as far as samples carry it."""

from collections.abc import Callable

import numpy as np
import pytest

from cion_jax.denoise.inputs import TrackedFeatures, Tracklets, arrange
from cion_jax.denoise.noise import Members, members
from cion_jax.denoise.prepare import Space, in_space, spaces, without_video_means
from cion_jax.denoise.vectors import unit
from experiments.feature_world import FeatureWorld, draw

SMALL = FeatureWorld(identities=60, videos=12, width=32)
BIASED = FeatureWorld(identities=60, videos=12, width=32, bias=0.9)


def arranged(world: FeatureWorld) -> Tracklets:
    return arrange(TrackedFeatures(*draw(world)[:4]))


def whole(features: np.ndarray, tracklet: np.ndarray) -> Members:
    return members(features, tracklet)


# The mean of a video.


def moved_by_plain_loops(tracklets: Tracklets) -> tuple[np.ndarray, np.ndarray]:
    """The docstring's formula, video by video, image by image; also the share of its own mean that each video loses."""
    rows = tracklets.features.astype(np.float64)
    count = int(tracklets.tracklet.max()) + 1
    c = [rows[tracklets.tracklet == each].mean(axis=0) for each in range(count)]
    of = [int(tracklets.video[tracklets.tracklet == each][0]) for each in range(count)]
    videos = range(max(of) + 1)
    k = [of.count(v) for v in videos]
    m = [sum(c[t] for t in range(count) if of[t] == v) / k[v] for v in videos]
    g = sum(c) / count
    w = sum(float((c[t] - m[of[t]]) @ (c[t] - m[of[t]])) for t in range(count)) / max(count - len(k), 1)
    between = sum(float((m[v] - g) @ (m[v] - g)) for v in videos) / len(k)
    b = max(0.0, between - sum(w / k[v] for v in videos) / len(k))
    shares = [b / (b + w / k[v]) if b else 0.0 for v in videos]
    moved = [x - g - shares[v] * (m[v] - g) for x, v in zip(rows, tracklets.video.tolist(), strict=True)]
    return np.array([x / np.sqrt(x @ x) for x in moved]), np.array(shares)


def some_videos(random: np.random.Generator, sizes: list[int], bias: float) -> Tracklets:
    """Videos of so many tracklets of 4 images, each video with a bias of its own."""
    video = np.repeat(np.arange(len(sizes)), sizes)
    people = unit(random.standard_normal((len(video), 16)))
    biases = bias * unit(random.standard_normal((len(sizes), 16)))
    images = np.repeat(people + biases[video], 4, axis=0) + 0.1 * random.standard_normal((4 * len(video), 16))
    return arrange(TrackedFeatures(images, np.repeat(video, 4), np.repeat(np.arange(len(video)), 4)))


def taken_off(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What was taken off two vectors before both were made unit vectors: f - l x = g - m y."""
    first, second = before.astype(np.float64)
    x, y = after.astype(np.float64)
    lengths = np.linalg.lstsq(np.stack([x, -y], axis=1), first - second, rcond=None)[0]
    return first - lengths[0] * x


@pytest.mark.parametrize("world", [SMALL, BIASED, FeatureWorld(identities=30, videos=1, appearances=1, width=16)])
def test_the_videos_mean_comes_off_as_the_formula_says(world: FeatureWorld) -> None:
    tracklets = arranged(world)
    expected, shares = moved_by_plain_loops(tracklets)
    np.testing.assert_allclose(without_video_means(tracklets), expected, atol=1e-5)
    assert world.videos == 1 or 0 < shares.min() < shares.max() < 1


def test_a_video_with_few_tracklets_is_moved_less() -> None:
    tracklets = some_videos(np.random.default_rng(0), [2, 4, 60, 60, 60], bias=0.7)
    after = without_video_means(tracklets)
    centers = np.array([tracklets.features[tracklets.tracklet == each].mean(axis=0) for each in range(186)], np.float64)
    g = centers.mean(axis=0)
    shares = []
    for video in range(5):
        rows = np.flatnonzero(tracklets.video == video)[[0, -1]]
        own = centers[tracklets.videos == video].mean(axis=0) - g
        off = taken_off(tracklets.features[rows], after[rows]) - g
        np.testing.assert_allclose(off, (off @ own) / (own @ own) * own, atol=1e-4)  # along its own mean
        shares.append(off @ own / (own @ own))
    assert 0.2 < shares[0] < shares[1] - 0.05 < shares[1] < min(shares[2:]) - 0.05 < max(shares) < 1
    np.testing.assert_allclose(shares, moved_by_plain_loops(tracklets)[1], atol=1e-3)


@pytest.mark.parametrize("sizes", [[40], [30, 20, 40]], ids=["one video", "videos that do not differ"])
def test_without_a_bias_features_are_centred_and_no_more(sizes: list[int]) -> None:
    tracklets = some_videos(np.random.default_rng(3), sizes, bias=0.0)
    count = int(tracklets.tracklet.max()) + 1
    centers = np.array(
        [tracklets.features[tracklets.tracklet == each].mean(axis=0) for each in range(count)], np.float64
    )
    np.testing.assert_allclose(
        without_video_means(tracklets), unit(tracklets.features - centers.mean(axis=0)), atol=1e-5
    )


def test_vectors_of_which_nothing_is_left_stay_as_they_are() -> None:
    tracklets = arrange(TrackedFeatures(np.ones((6, 4)), np.zeros(6, int), np.arange(6) // 2))
    np.testing.assert_array_equal(without_video_means(tracklets), tracklets.features)


def nearest_is_the_same_person(features: np.ndarray, tracklets: Tracklets, truth: np.ndarray) -> float:
    """How often a tracklet's nearest in another video is of its person, of tracklets that are elsewhere, too."""
    centers = whole(features, tracklets.tracklet).centroids
    identity = np.array([np.bincount(truth[tracklets.tracklet == each] + 1).argmax() for each in range(len(centers))])
    elsewhere = tracklets.videos[:, None] != tracklets.videos
    same = (identity[:, None] == identity) & elsewhere
    nearest = np.where(elsewhere, centers @ centers.T, -np.inf).argmax(axis=1)
    return float(same[np.arange(len(identity)), nearest][same.any(axis=1)].mean())


def test_a_strong_bias_of_videos_no_longer_hides_people() -> None:
    world = FeatureWorld(identities=120, videos=12, width=32, bias=0.9, look_alikes=0, switches=0)
    sample = draw(world)
    tracklets = arrange(TrackedFeatures(*sample[:4]))
    truth = sample.identity[tracklets.place]
    before = nearest_is_the_same_person(tracklets.features, tracklets, truth)
    after = nearest_is_the_same_person(without_video_means(tracklets), tracklets, truth)
    assert before < 0.9 and 1 - after < (1 - before) / 4


# Whitening.


def of_space(features: np.ndarray, tracklet: np.ndarray, name: str) -> Space:
    (space,) = spaces(features, whole(features, tracklet), (name,))
    assert space.name == name
    return space


def shrunk_by_formula(covariance: np.ndarray, samples: int) -> tuple[np.ndarray, float]:
    """Towards round, with the oracle-approximating weight."""
    p = len(covariance)
    square = np.trace(covariance @ covariance)
    trace = np.trace(covariance)
    weight = ((1 - 2 / p) * square + trace**2) / ((samples + 1 - 2 / p) * (square - trace**2 / p))
    weight = min(weight, 1.0)
    return (1 - weight) * covariance + weight * trace / p * np.eye(p), weight


def shrunk_of(space: Space) -> np.ndarray:
    """The covariance that a space makes round."""
    return np.linalg.inv(space.map @ space.map.T)


def steep(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around a mean, whose directions vary by ever less."""
    random = np.random.default_rng(seed)
    return unit(1 + random.standard_normal((count, width)) * np.geomspace(1, 0.05, width)).astype(np.float32)


def test_total_makes_the_covariance_of_many_samples_round() -> None:
    features = steep(30_000, 16)
    space = of_space(features, np.arange(30_000) // 5, "total")
    before = np.linalg.eigvalsh(np.cov(features.T))
    made = space(features)
    after = np.linalg.eigvalsh(np.cov(made.T))
    assert before[-1] / before[0] > 100 and 0.85 < after[0] <= after[-1] < 1.02
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-4)


@pytest.mark.parametrize(("count", "width"), [(2000, 16), (60, 16), (30, 48)])
def test_total_is_shrunk_by_the_formula(count: int, width: int) -> None:
    features = steep(count, width).astype(np.float64)
    expected, weight = shrunk_by_formula(np.cov(features.T, bias=True), count)
    np.testing.assert_allclose(shrunk_of(of_space(features, np.arange(count) // 3, "total")), expected, atol=1e-8)
    assert 0 < weight < 1


def test_within_is_the_covariance_around_tracklet_means() -> None:
    tracklets = arranged(SMALL)
    width = 32
    count = int(tracklets.tracklet.max()) + 1
    scatter = np.zeros((width, width))
    for each in range(count):
        rows = tracklets.features[tracklets.tracklet == each].astype(np.float64)
        for row in rows - rows.mean(axis=0):
            scatter += np.outer(row, row)
    degrees = len(tracklets.features) - count
    expected, _ = shrunk_by_formula(scatter / degrees, degrees)
    space = of_space(tracklets.features, tracklets.tracklet, "within")
    np.testing.assert_allclose(shrunk_of(space), expected, atol=1e-7)
    assert not space.mean.any()


def test_none_is_the_tracklets_centroids() -> None:
    tracklets = arranged(SMALL)
    kept = whole(tracklets.features, tracklets.tracklet)
    np.testing.assert_allclose(
        in_space(of_space(tracklets.features, tracklets.tracklet, "none"), kept), kept.centroids, atol=1e-12
    )


def distances_between(space: Space | Callable[[np.ndarray], np.ndarray], kept: Members) -> np.ndarray:
    """Of every two tracklets."""
    rows = unit(space(kept.sums / np.diff(kept.bounds)[:, None]))
    return (1 - rows @ rows.T)[np.triu_indices(len(rows), 1)]


def test_with_fewer_samples_than_dimensions_distances_do_not_all_become_equal() -> None:
    """An unshrunk inverse would put all samples into corners of a simplex."""
    random = np.random.default_rng(0)
    tracklet = np.arange(60) // 2
    identity = np.arange(30) // 3
    features = steep(10, 256)[identity[tracklet]] + 0.01 * random.standard_normal((60, 256))
    features = unit(features).astype(np.float32)
    kept = whole(features, tracklet)
    covariance = np.cov(features.T, bias=True)
    values, directions = np.linalg.eigh(covariance)
    mean = features.mean(axis=0)

    def ridged(rows: np.ndarray) -> np.ndarray:
        return (rows - mean) @ directions / np.sqrt(np.maximum(values, 0) + 1e-9)

    same = (identity[:, None] == identity)[np.triu_indices(30, 1)]
    ours, unshrunk = (distances_between(made, kept) for made in (of_space(features, tracklet, "total"), ridged))
    assert unshrunk.std() < 1e-4 and ours.std() > 0.03 and ours[same].max() < ours[~same].min() - 0.03
    assert shrunk_by_formula(covariance, 60)[1] > 0.1  # where of many samples next to nothing is left
    assert shrunk_by_formula(np.cov(steep(5000, 256).T, bias=True), 5000)[1] < 0.03


@pytest.mark.parametrize("name", ["total", "within", "none"])
def test_the_scale_of_features_does_not_matter(name: str) -> None:
    tracklets = arranged(SMALL)
    made = []
    for factor in (1.0, 7.0, 1e-3):
        features = tracklets.features * factor
        made.append(in_space(of_space(features, tracklets.tracklet, name), whole(features, tracklets.tracklet)))
    for other in made[1:]:
        np.testing.assert_allclose(other, made[0], atol=1e-4)


@pytest.mark.parametrize("name", ["total", "within"])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_spaces_of_images_that_hardly_differ_have_numbers(name: str, count: int) -> None:
    features = np.ones((count, 5), np.float32) / np.float32(np.sqrt(5))
    space = of_space(features, np.arange(count) // 2, name)
    assert np.isfinite(space.map).all() and np.isfinite(in_space(space, whole(features, np.arange(count) // 2))).all()


def test_both_spaces_have_the_images_that_are_kept_alone() -> None:
    tracklets = arranged(SMALL)
    some = np.where(np.arange(len(tracklets.tracklet)) % 5 == 0, -1, tracklets.tracklet)
    for name in ("total", "within"):
        left = of_space(tracklets.features, some, name)
        again = of_space(tracklets.features[some >= 0], some[some >= 0], name)
        np.testing.assert_allclose(left.map @ left.map.T, again.map @ again.map.T, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(left.mean, again.mean, atol=1e-7)
