"""Denoising keeps what it promises, whatever the world, the order of its images, or the number of devices."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.config import Denoising
from cion_jax.denoise import near as near_module
from cion_jax.denoise import single as single_module
from cion_jax.denoise.clusters import Clusters
from cion_jax.denoise.denoise import check_invariants, denoise
from cion_jax.denoise.inputs import TrackedFeatures, Tracklets, arrange, frame_warnings
from cion_jax.denoise.levels import Level, run_levels
from cion_jax.denoise.near import near, nearest
from cion_jax.denoise.noise import Members, members, windows
from cion_jax.denoise.single import TIE, consistent
from cion_jax.denoise.vectors import ROUNDING
from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import agreement
from experiments.feature_world import FeatureWorld, Sample, draw

SMALL = FeatureWorld(identities=60, videos=12, width=32)
#: Easy, as it comes, and so noisy that distances of the same and of two people overlap.
WORLDS = [replace(SMALL, noise=0.3, bias=0.1), SMALL, replace(SMALL, noise=0.9, bias=0.6, drift=0.6)]


def arranged(sample: Sample, frames: bool = True) -> Tracklets:
    return arrange(TrackedFeatures(*sample[:4]), frames)


def centroids(tracklets: Members) -> np.ndarray:
    """The simplest space to compare tracklets in."""
    return tracklets.centroids


def levels_of(
    tracklets: Tracklets, sigma: float, tau: float, within: int | None = None, levels: int = 3
) -> tuple[list[Level], Clusters]:
    """All levels on features as they are, and the last one's clusters."""
    raw = members(tracklets.features, tracklets.tracklet)
    cleaned = consistent(tracklets.features, tracklets.tracklet, sigma)
    made = list(run_levels(tracklets, raw, cleaned, centroids, sigma, tau, within, levels))
    return made, made[-1].clusters


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# Level 1, a single tracklet.


def dropped_one_by_one(features: np.ndarray, sigma: float) -> np.ndarray:
    """The plain loop: centroid, farthest member, again."""
    stays = np.ones(len(features), bool)
    while True:
        center = unit(features[stays].astype(np.float64).mean(axis=0))
        distances = np.where(stays, 1 - features @ center, -1)
        if distances.max() <= sigma:
            return stays
        stays[np.argmax(distances >= distances.max() - TIE)] = False


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("long", [1, 1024], ids=["without Gram matrix", "with Gram matrix"])
def test_a_tracklet_drops_as_the_plain_loop_does(sigma: float, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cion_jax.denoise.single.LONG", long)
    jax.clear_caches()
    tracklets = arranged(draw(WORLDS[2]))
    starts = tracklets.bounds[:-1]
    expected = [dropped_one_by_one(rows, sigma) for rows in np.split(tracklets.features, starts[1:])]
    stay = np.isin(np.arange(len(tracklets.features)), consistent(tracklets.features, tracklets.tracklet, sigma).images)
    np.testing.assert_array_equal(stay, np.concatenate(expected))


def test_what_devices_round_away_is_dropped_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = single_module.drop
    monkeypatch.setattr(single_module, "drop", lambda *arrays: drop(*arrays[:2], 1.05 * arrays[2]))
    tracklets = arranged(draw(WORLDS[2]))
    left = consistent(tracklets.features, tracklets.tracklet, 0.2)
    assert left.distance.max() <= 0.2 and len(left.names) == len(tracklets.bounds) - 1


def test_of_images_that_cancel_out_one_stays() -> None:
    features = np.array([[1, 0], [-1, 0]], np.float32)
    tracklets = arrange(TrackedFeatures(features, np.zeros(2, int), np.zeros(2, int)))
    levels, _ = levels_of(tracklets, 0.3, 0.3)
    assert [(level.labels >= 0).sum() for level in levels] == [2, 1, 1, 1]


# Who is near whom.


@pytest.mark.parametrize("count", [1, 50, 300])
@pytest.mark.parametrize("within", [None, 1, 70])
def test_near_pairs_are_those_of_the_full_matrix(
    count: int, within: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_module, "TILE", 64)
    jax.clear_caches()
    vectors = unit(np.random.default_rng(count).standard_normal((count, 4)))
    i, j = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    expected = np.argwhere((1 - vectors @ vectors.T < 0.5) & (i < j) & (j < i + (within or count)))
    np.testing.assert_array_equal(near(vectors, windows(count, within), 0.5), expected)
    jax.clear_caches()


@pytest.mark.parametrize("count", [1, 64, 700])
def test_the_nearest_is_that_of_the_full_matrix(count: int) -> None:
    random = np.random.default_rng(count)
    vectors, others = (unit(random.standard_normal((each, 4))) for each in (300, count))
    others = np.concatenate([others, others])  # of equals the first
    np.testing.assert_array_equal(nearest(vectors, others), (vectors @ others.T).argmax(axis=1) % count)


def test_a_tau_with_which_all_are_near_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "MOST", 100)
    vectors = unit(np.random.default_rng(0).standard_normal((15, 4)))
    with pytest.raises(UserError, match=r"more than 100 pairs of 15 are nearer than tau 2: .*lower tau"):
        near(vectors, windows(15, None), 2)


# The promises.


def close_pairs(clusters: Clusters, tau: float, within: int | None) -> np.ndarray:
    """Clusters within a range that are less than tau apart on average over their tracklets, from the full matrix."""
    numbers = clusters.numbers
    belongs = (clusters.cluster == numbers[:, None]) / np.bincount(clusters.cluster)[numbers, None]
    distance = belongs @ (1 - clusters.vectors @ clusters.vectors.T) @ belongs.T
    first, second = np.nonzero(distance < tau - ROUNDING)
    here = (first < second) & (second < first + (within or len(numbers)))
    return np.stack([numbers[first[here]], numbers[second[here]]], axis=1)


@pytest.mark.parametrize("within", [None, 10])
@pytest.mark.parametrize("thresholds", [(0.2, 0.5), (0.5, 0.2), (0.3, 0.0)], ids=["strict", "wide", "nobody linked"])
@pytest.mark.parametrize("world", WORLDS, ids=["easy", "usual", "hard"])
def test_what_is_promised_holds(world: FeatureWorld, thresholds: tuple[float, float], within: int | None) -> None:
    tracklets = arranged(draw(world))
    sigma, tau = thresholds
    levels, clusters = levels_of(tracklets, sigma, tau, within)
    for level in levels:
        images = np.flatnonzero(level.labels >= 0)
        assert level.noise.images == len(images) and level.noise.identities == len(np.unique(level.labels[images]))
        seen = np.stack([level.labels, tracklets.frame_key, tracklets.tracklet], axis=1)[images]
        seen = np.unique(seen[seen[:, 1] >= 0], axis=0)
        assert len(np.unique(seen[:, :2], axis=0)) == len(seen)
        assert (level.noise.inconsistent == 0) == (level is not levels[0])
    kept = clusters.home >= 0
    centers = clusters.members.centroids[clusters.home]
    assert (1 - np.einsum("nd,nd->n", tracklets.features, centers))[kept].max() <= sigma + ROUNDING
    pairs = close_pairs(clusters, tau, within)
    assert all(clusters.cannot_link(*pair) for pair in pairs.tolist())
    np.testing.assert_array_equal(clusters.members.names[pairs], levels[-1].close)
    assert levels[-1].noise.close == len(pairs) and (len(clusters.merges) > 0) == (tau > 0)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_broken_promise_is_noticed(levels: int) -> None:
    tracklets = arranged(draw(SMALL))

    def made() -> Clusters:
        clusters = levels_of(tracklets, 0.3, 0.25, levels=levels)[1]
        check_invariants(clusters, 0.3, 0.25, None, levels)
        return clusters

    def broken(clusters: Clusters, message: str) -> None:
        with pytest.raises(RuntimeError, match=f"broke its promise.*{message}"):
            check_invariants(clusters, 0.3, 0.25, None, levels)

    moved = made()
    image = int(np.flatnonzero(moved.home >= 0)[0])
    row = moved.members.row[moved.members.images == image][0]
    moved.home[image] = np.argmin(moved.members.centroids @ moved.members.centroids[row])
    broken(moved, ": 1 images farther than sigma")

    together = made()
    numbers = together.numbers.tolist()
    one, other = next(pair for pair in combinations(numbers, 2) if together.cannot_link(*pair))
    together.merge(one, other, 0.0)
    broken(together, "[1-9][0-9]* identities twice in a frame")

    if levels == 3:
        divided = levels_of(tracklets, 0.3, 0.25, levels=1)[1]
        broken(divided, "0 identities twice in a frame, [1-9][0-9]* pairs nearer")


def test_a_dropped_image_goes_to_the_nearest_tracklet_of_its_video_or_to_nobody() -> None:
    tracklets = arranged(draw(WORLDS[2]))
    sigma = 0.35
    before, after = (levels_of(tracklets, sigma, 0.3, levels=level) for level in (1, 2))
    clusters = after[1]
    strays = np.flatnonzero(before[1].home < 0)
    assert 0 < np.count_nonzero(clusters.home[strays] >= 0) < len(strays)
    np.testing.assert_array_equal(np.delete(clusters.home, strays), np.delete(before[1].home, strays))
    distance = 1 - tracklets.features[strays].astype(np.float64) @ clusters.members.centroids.T
    distance[tracklets.video[strays, None] != clusters.video] = np.inf
    for stray, far in zip(strays.tolist(), distance, strict=True):
        if clusters.home[stray] >= 0:
            assert far[clusters.home[stray]] <= min(sigma, far.min() + 1e-6)
        elif far.min() < sigma - 1e-6:
            cluster = clusters.cluster[far.argmin()]
            assert tracklets.frame_key[stray] in tracklets.frame_key[clusters.cluster[clusters.home] == cluster]


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("world", WORLDS, ids=["easy", "usual", "hard"])
def test_noise_never_grows_and_identities_come_nearer_to_the_truth(world: FeatureWorld, frames: bool) -> None:
    sample = draw(world)
    results = [denoise(*sample[:4], Denoising(levels=level, frames=frames)) for level in (1, 2, 3)]
    counts = [noise.inconsistent + noise.close for noise in results[-1].noise]
    assert counts == sorted(counts, reverse=True)
    assert [result.noise for result in results] == [results[-1].noise[: level + 1] for level in (1, 2, 3)]
    every = [sample.tracklet, *(result.labels for result in results)]
    raw, first, second, third = (agreement(labels, sample.identity).f1 for labels in every)
    if results[-1].settings.tau:
        assert raw < second < third and third > raw + 0.4
    else:  # so noisy, and nobody known to be two people
        assert world is WORLDS[2] and not frames and "--tau" in results[-1].warnings[0] and third > first > raw


def test_the_order_of_images_does_not_matter() -> None:
    sample = draw(WORLDS[2])
    order = np.random.default_rng(1).permutation(len(sample.video))
    one, other = (denoise(*(values[rows] for values in sample[:4])) for rows in (np.arange(len(order)), order))
    assert one.settings.tau and one.as_dict() == other.as_dict()
    np.testing.assert_array_equal(one.labels[order], other.labels)


def test_two_people_in_a_frame_stay_two_however_alike() -> None:
    features = np.ones((8, 4), np.float32)
    tracklet = np.arange(8) // 4
    frame = np.tile(np.arange(4), 2)
    video = np.zeros(8, int)
    settings = Denoising(sigma=0.1, tau=0.1, whiten="none")
    together = denoise(features, video, tracklet, frame, settings)
    assert len(set(together.labels)) == 2 and together.cannot_link == 1
    separate = denoise(features, video, tracklet, frame + 4 * tracklet, settings)
    assert set(separate.labels) == {0} and separate.cannot_link == 0
    off = denoise(features, video, tracklet, frame, replace(settings, frames=False))
    assert set(off.labels) == {0} and off.cannot_link == 0


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_pairs_that_were_not_yet_compared_are_not_said_to_share_a_frame(levels: Any) -> None:
    result = denoise(*draw(SMALL)[:4], Denoising(tau=0.3, frames=False, levels=levels))
    assert result.cannot_link == 0 and (result.noise[-1].close > 0) == (levels < 3)


def test_tau_0_links_nobody() -> None:
    sample = draw(SMALL)
    result = denoise(*sample[:4], Denoising(tau=0))
    kept = result.labels >= 0
    assert 0 < np.count_nonzero(~kept) < 0.2 * len(kept) and not result.clusters.merges and not result.warnings
    assert len(np.unique(result.clusters.cluster)) == len(np.unique(sample.tracklet[kept])) == result.labels.max() + 1


# What is refused.


def with_row_7(features: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(len(features))[:, None] == 7, np.float32(value), features)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda s: s._replace(video=s.video[:-1]), "video is int64 of shape"),
        (lambda s: s._replace(frame=s.frame / 2), "frame is float64"),
        (lambda s: s._replace(features=s.features[:, 0]), r"\(images, width\)"),
        (lambda s: s._replace(features=with_row_7(s.features, 0)), "first that of image 7"),
        (lambda s: s._replace(features=with_row_7(s.features, np.nan)), "zero, infinite or NaN, first that of image 7"),
        (lambda s: s._replace(tracklet=s.tracklet * 0), "tracklet 0 is in 12 videos"),
        (lambda s: s._replace(tracklet=s.tracklet * 0 - 1), "no image has a tracklet"),
    ],
)
def test_what_cannot_be_denoised_is_refused(harm: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        denoise(*harm(draw(SMALL))[:4])


@pytest.mark.parametrize("whiten", ["total", "within", "none"])
@pytest.mark.parametrize("count", [1, 50])
def test_images_that_are_all_the_same_are_one_person(count: int, whiten: Any) -> None:
    """One image alone, or equal images in tracklets of different videos."""
    number = np.arange(count) // 5
    result = denoise(np.ones((count, 3)), number, number, None, Denoising(tau=0.1, whiten=whiten))
    assert set(result.labels) == {0}


@pytest.mark.parametrize("count", [1, 50])
def test_where_images_are_all_the_same_auto_links_nobody_and_says_so(count: int) -> None:
    number = np.arange(count) // 5
    result = denoise(np.ones((count, 3)), number, number)
    np.testing.assert_array_equal(result.labels, number)
    assert result.settings.tau == 0 and any("too few pairs" in line for line in result.warnings)


# Frames that begin anew in each tracklet.


def anew(sample: Sample, videos: int) -> Sample:
    """Frames counted from 0 in each tracklet of the first videos."""
    first = np.full(sample.tracklet.max() + 1, 1 << 30)
    np.minimum.at(first, sample.tracklet, sample.frame)
    return sample._replace(frame=np.where(sample.video < videos, sample.frame - first[sample.tracklet], sample.frame))


@pytest.mark.parametrize("videos", [0, 2, 12])
def test_videos_whose_frames_begin_anew_in_each_tracklet_are_named(videos: int) -> None:
    sample = anew(draw(SMALL), videos)
    warnings = frame_warnings(TrackedFeatures(*sample[:4]))
    assert warnings == denoise(*sample[:4], Denoising(tau=0)).warnings
    named = {0: [], 2: ["in 2 of 12 videos (0, 1) all "], 12: ["in 12 of 12 videos (0, 1, 2, 3, 4, ...) all "]}[videos]
    assert len(warnings) == len(named)
    assert all(line.startswith(start) and "--no-frames" in line for line, start in zip(warnings, named, strict=True))


def test_with_frames_off_they_link_all_the_same() -> None:
    sample = anew(draw(SMALL), 12)
    on, off = (denoise(*sample[:4], Denoising(tau=0.25, frames=frames)) for frames in (True, False))
    unknown = denoise(*sample[:3], None, Denoising(tau=0.25))
    np.testing.assert_array_equal(off.labels, unknown.labels)
    assert not off.warnings and off.noise[1].identities == on.noise[1].identities
    assert on.noise[2].identities > 0.98 * on.noise[1].identities > 1.1 * off.noise[2].identities
    one, other = (agreement(result.labels, sample.identity).f1 for result in (on, off))
    assert other > one


@pytest.mark.parametrize("world", WORLDS, ids=["easy", "usual", "hard"])
def test_ordinary_worlds_give_no_warning(world: FeatureWorld) -> None:
    assert denoise(*draw(world)[:4]).warnings == ()


def test_the_number_of_devices_does_not_matter() -> None:
    program = (
        "import sys, jax, numpy as np; sys.path.insert(0, 'tests'); from test_denoise import *;"
        "result = denoise(*draw(WORLDS[2])[:4]);"
        "print(jax.device_count(), repr(result.settings.tau), *result.noise[-1], *result.labels)"
    )
    results = []
    for devices in (1, 8):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", program]
        number, tau, *rest = subprocess.check_output(command, env=environment, text=True).split()
        assert int(number) == devices and float(tau) > 0
        results.append((tau, rest))
    assert results[0] == results[1]
