"""Denoising keeps what it promises, whatever the world, the order of its images, or the number of devices."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from cion_jax.denoise import near as near_module
from cion_jax.denoise import single as single_module
from cion_jax.denoise.levels import Level, climb
from cion_jax.denoise.near import near, nearest
from cion_jax.denoise.notion import identities, windows
from cion_jax.denoise.sightings import Sightings, sightings
from cion_jax.denoise.single import TIE, consistent
from cion_jax.denoise.thresholds import estimate
from cion_jax.errors import UserError
from cion_jax.evaluate.agreement import agreement
from experiments.feature_world import FeatureWorld, Sample, draw

SMALL = FeatureWorld(identities=60, videos=12, width=32)
#: Easy, as it comes, and so noisy that distances of the same and of two people overlap.
WORLDS = [replace(SMALL, noise=0.3, bias=0.1), SMALL, replace(SMALL, noise=0.9, bias=0.6, drift=0.6)]


def brought_in(sample: Sample, frames: bool = True) -> Sightings:
    return sightings(sample.features, sample.video, sample.tracklet, sample.frame if frames else None)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


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
    found = brought_in(draw(WORLDS[2]))
    starts = found.bounds[:-1]
    expected = [dropped_one_by_one(rows, sigma) for rows in np.split(found.features, starts[1:])]
    stay = np.isin(np.arange(len(found.features)), consistent(found.features, found.tracklet, sigma).images)
    np.testing.assert_array_equal(stay, np.concatenate(expected))


def test_what_devices_round_away_is_dropped_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = single_module.drop
    monkeypatch.setattr(single_module, "drop", lambda *arrays: drop(*arrays[:2], 1.05 * arrays[2]))
    found = brought_in(draw(WORLDS[2]))
    left = consistent(found.features, found.tracklet, 0.2)
    assert left.apart.max() <= 0.2 and len(left.names) == len(found.bounds) - 1


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


def all_levels(sample: Sample, within: int | None = None, frames: bool = True) -> tuple[Sightings, Any, list[Level]]:
    found = brought_in(sample, frames)
    thresholds = estimate(found)
    return found, thresholds, list(climb(found, *thresholds, within))


@pytest.mark.parametrize("within", [None, 10])
@pytest.mark.parametrize("thresholds", [None, (0.2, 0.5), (0.5, 0.2)], ids=["auto", "strict members", "strict pairs"])
@pytest.mark.parametrize("world", WORLDS, ids=["easy", "usual", "hard"])
def test_what_is_promised_holds(
    world: FeatureWorld, thresholds: tuple[float, float] | None, within: int | None
) -> None:
    found = brought_in(draw(world))
    sigma, tau = thresholds or estimate(found)
    levels = list(climb(found, sigma, tau, within))
    for level in levels[1:]:
        assert identities(found.features, level.labels).apart.max() <= sigma + 1e-12
        seen = np.stack([found.moment, level.labels], axis=1)[(level.labels >= 0) & (found.moment >= 0)]
        both, counts = np.unique(seen, axis=0, return_counts=True)
        assert counts.max() == 1, both[counts > 1]
    assert levels[-1].noise.close == len(levels[-1].refused)


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("world", WORLDS, ids=["easy", "usual", "hard"])
def test_noise_never_grows_and_identities_come_nearer_to_the_truth(world: FeatureWorld, frames: bool) -> None:
    sample = draw(world)
    found, _, levels = all_levels(sample, frames=frames)
    counts = [level.noise.inconsistent + level.noise.close for level in levels]
    assert counts == sorted(counts, reverse=True)
    truth = sample.identity[found.place]
    scores = [agreement(level.labels, truth).f1 for level in levels]
    assert scores[0] < scores[2] < scores[3]


def test_the_order_of_images_does_not_matter() -> None:
    sample = draw(WORLDS[2])
    order = np.random.default_rng(1).permutation(len(sample.video))
    labels = []
    for each in (sample, Sample(*(values[order] for values in sample))):
        found, thresholds, levels = all_levels(each)
        back = np.full(found.given, -1)
        back[found.place] = levels[-1].labels
        labels.append((thresholds, back))
    assert labels[0][0] == labels[1][0]
    np.testing.assert_array_equal(labels[0][1][order], labels[1][1])


def test_two_people_in_a_frame_stay_two_however_alike() -> None:
    features = np.ones((8, 4), np.float32)
    tracklet, frame = np.arange(8) // 4, np.tile(np.arange(4), 2)
    found = sightings(features, np.zeros(8, int), tracklet, frame)
    *_, last = climb(found, 0.1, 0.1)
    assert len(set(last.labels)) == 2 and last.refused == {(0, 1): "met"}
    apart = sightings(features, np.zeros(8, int), tracklet, frame + 4 * tracklet)
    assert set([*climb(apart, 0.1, 0.1)][-1].labels) == {0}


def test_of_images_that_cancel_out_one_stays() -> None:
    features = np.array([[1, 0], [-1, 0]], np.float32)
    found = sightings(features, np.zeros(2, int), np.zeros(2, int))
    assert [(level.labels >= 0).sum() for level in climb(found, 0.3, 0.3)] == [2, 1, 1, 1]


def with_row_7(features: np.ndarray, value: float) -> np.ndarray:
    return np.where(np.arange(len(features))[:, None] == 7, np.float32(value), features)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda s: s._replace(video=s.video[:-1]), "video is int64 of shape"),
        (lambda s: s._replace(frame=s.frame / 2), "frame is float64"),
        (lambda s: s._replace(features=s.features[:, 0]), r"\(images, width\)"),
        (lambda s: s._replace(features=with_row_7(s.features, 0)), "image 7 is zero"),
        (lambda s: s._replace(features=with_row_7(s.features, np.nan)), "image 7 is zero or no number"),
        (lambda s: s._replace(tracklet=s.tracklet * 0), "tracklet 0 is in 12 videos"),
        (lambda s: s._replace(tracklet=s.tracklet * 0 - 1), "no image has a tracklet"),
    ],
)
def test_what_cannot_be_denoised_is_refused(harm: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        brought_in(harm(draw(SMALL)))


@pytest.mark.parametrize("count", [1, 50])
def test_images_that_are_all_the_same_are_one_person(count: int) -> None:
    """One image alone, or equal images in tracklets of different videos."""
    number = np.arange(count) // 5
    found = sightings(np.ones((count, 3)), number, number)
    assert set([*climb(found, *estimate(found))][-1].labels) == {0}


def test_the_number_of_devices_does_not_matter() -> None:
    program = (
        "import sys, jax, numpy as np; sys.path.insert(0, 'tests');"
        "from test_denoise import *; print(jax.device_count(), *all_levels(draw(WORLDS[2]))[2][-1].labels)"
    )
    results = []
    for devices in (1, 8):
        flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", program]
        number, *labels = subprocess.check_output(command, env=environment, text=True).split()
        assert int(number) == devices
        results.append(labels)
    assert results[0] == results[1]
