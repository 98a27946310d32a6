"""sigma and tau come from the data, and where the data do not carry a link nobody is linked and a line says so."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.config import Denoising
from cion_jax.denoise import thresholds
from cion_jax.denoise.denoise import Denoised, denoise, prepared
from cion_jax.denoise.inputs import TrackedFeatures, Tracklets
from cion_jax.denoise.noise import Members, members
from cion_jax.denoise.prepare import Space, in_space, spaces
from cion_jax.denoise.thresholds import BUNCHES, FALSE_SHARE, FOUND, Evidence, estimate_sigma, estimate_tau
from cion_jax.evaluate.clustering_metrics import agreement
from experiments import denoising
from experiments.feature_world import FeatureWorld, Sample, draw

SMALL = FeatureWorld(identities=60, videos=12, width=32)
EASY = replace(SMALL, noise=0.3, bias=0.2, drift=0.25, look_alikes=0.05, switches=0.02, garbage=0.02)
ONCE = replace(SMALL, appearances=1, fragments=0, look_alikes=0, switches=0)


@cache
def sample_of(world: FeatureWorld) -> Sample:
    return draw(world)


def denoised(world: FeatureWorld, **settings: Any) -> Denoised:
    return denoise(*sample_of(world)[:4], Denoising(**settings))


def scores(world: FeatureWorld, labels: np.ndarray) -> Any:
    return agreement(labels, sample_of(world).identity)


def arranged(sample: Sample) -> tuple[Tracklets, Members]:
    tracklets = prepared(TrackedFeatures(*sample[:4]), Denoising())
    return tracklets, members(tracklets.features, tracklets.tracklet)


def only(tracklets: Tracklets, kept: Members, name: str = "total") -> Space:
    (space,) = spaces(tracklets.features, kept, (name,))
    return space


# sigma.


def leave_one_out(tracklets: Tracklets) -> list[float]:
    """How far each image is from the centroid of the others of its tracklet, one by one."""
    distances = []
    for rows in np.split(tracklets.features.astype(np.float64), tracklets.bounds[1:-1]):
        for each in range(len(rows) if len(rows) > 1 else 0):
            others = np.delete(rows, each, axis=0).sum(axis=0)
            distances.append(1 - float(rows[each] @ others) / float(np.sqrt(others @ others)))
    return distances


@pytest.mark.parametrize("noise", [0.1, 0.45, 0.9])
def test_sigma_is_four_standard_deviations_of_the_lower_half_above_the_median(noise: float) -> None:
    tracklets, kept = arranged(sample_of(replace(SMALL, noise=noise)))
    distances = sorted(leave_one_out(tracklets))
    low, median = np.quantile(distances, 0.25), np.quantile(distances, 0.5)
    assert estimate_sigma(kept) == pytest.approx(median + 4 * (median - low) / 0.6745, rel=1e-5)
    assert estimate_sigma(kept) < 1


def test_few_images_of_people_and_most_of_garbage_are_dropped_at_sigma() -> None:
    world = replace(SMALL, switches=0, garbage=0.1)
    labels = denoised(world, levels=1).labels
    truth = sample_of(world).identity
    assert (labels[truth >= 0] < 0).mean() < 0.03 < 0.7 < (labels[truth < 0] < 0).mean()


def test_where_the_images_of_a_tracklet_scatter_widely_nothing_is_dropped() -> None:
    random = np.random.default_rng(0)
    tracklet = np.arange(600) // 6
    scattered = random.standard_normal((600, 8))
    result = denoise(scattered, tracklet % 5, tracklet, None, Denoising(tau=0))
    assert result.settings.sigma == 2.0 and (result.labels >= 0).all()


def test_without_a_tracklet_of_two_images_nothing_is_dropped() -> None:
    random = np.random.default_rng(0)
    result = denoise(random.standard_normal((30, 8)), np.zeros(30, int), np.arange(30), None, Denoising(tau=0))
    assert result.settings.sigma == 2.0 and (result.labels == np.arange(30)).all()


# tau, and how it comes about.


@pytest.mark.parametrize("cells", [1 << 23, 4000], ids=["all rows", "some rows"])
def test_evidence_counts_pairs_that_may_be_linked(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "CELLS", cells)
    tracklets, kept = arranged(sample_of(replace(SMALL, width=64, look_alikes=0)))
    space = only(tracklets, kept)
    evidence = estimate_tau(tracklets, kept, [space])
    assert evidence is not None and evidence.tau > 0
    rows = in_space(space, kept)
    frames = [set(tracklets.frame_key[tracklets.tracklet == each].tolist()) for each in range(len(rows))]
    count = len(rows)
    distances = [
        1 - float(rows[one] @ rows[other])
        for one in range(count)
        for other in range(one + 1, count)
        if frames[one].isdisjoint(frames[other])
    ]
    expected = np.searchsorted(np.sort(distances), evidence.steps)
    step = int(np.flatnonzero(evidence.steps >= evidence.tau - 1e-12)[0])
    if cells > count**2:
        np.testing.assert_allclose(evidence.near, expected, atol=2)
    assert evidence.near[step] == pytest.approx(expected[step], rel=0.35)
    trusted = evidence.by_chance <= FALSE_SHARE * evidence.near
    last = np.flatnonzero(trusted & (evidence.near >= BUNCHES * np.sqrt(count)))[-1]
    assert evidence.links == evidence.near[last] and evidence.false == evidence.by_chance[last]
    assert evidence.near[step] >= FOUND * evidence.links > evidence.near[step - 1]


def test_by_chance_falls_off_from_the_nearest_fifth_of_strangers() -> None:
    tracklets, kept = arranged(sample_of(SMALL))
    evidence = estimate_tau(tracklets, kept, [only(tracklets, kept)])
    assert evidence is not None
    steps = evidence.steps
    by_chance = evidence.by_chance
    np.testing.assert_allclose(
        np.diff(np.log(by_chance)), np.log(by_chance[-1] / by_chance[0]) / (len(steps) - 1), rtol=1e-6
    )
    pairs = math.comb(len(kept.names), 2)
    assert 0.8 < 5 * by_chance[-1] / pairs < 1  # a fifth of the pairs that share no frame
    five = np.interp(0.25 * by_chance[-1], by_chance, steps)  # a twentieth
    space = only(tracklets, kept)
    one, other = in_space(space, kept)[thresholds.sample_pairs(tracklets, kept).strangers.T]
    frame_by_frame, _ = frame_by_frame_in_loops(tracklets, kept, space)
    distances = np.maximum(1 - (one * other).sum(axis=1), frame_by_frame)
    moved = np.median(distances) - median_of_pairs(tracklets, kept, space)
    assert moved > 0.02
    np.testing.assert_allclose([five, steps[-1]], np.quantile(distances, [0.05, 0.2]) - moved, rtol=1e-3)


def median_of_pairs(tracklets: Tracklets, kept: Members, space: Space) -> float:
    """The median distance of two tracklets that share no frame."""
    vectors = in_space(space, kept)
    return float(np.median((1 - vectors @ vectors.T)[thresholds.sample_pairs(tracklets, kept).may_link]))


@pytest.mark.parametrize("name", ["total", "within"])
@pytest.mark.parametrize("seed", range(3))
def test_as_many_as_are_expected_by_chance_are_near_where_nearly_all_are_strangers(name: str, seed: int) -> None:
    """Also where the mean of a video of few people is taken off, which pushes those who share a frame apart."""
    tracklets, kept = arranged(sample_of(replace(ONCE, width=64, identities=300, videos=60, seed=seed)))
    evidence = estimate_tau(tracklets, kept, [only(tracklets, kept, name)])
    assert evidence is not None and evidence.near[-1] < 1.5 * evidence.by_chance[-1]


def test_where_all_share_a_frame_nobody_is_linked() -> None:
    random = np.random.default_rng(0)
    tracklet = np.arange(60) // 4
    result = denoise(random.standard_normal((60, 8)), np.zeros(60, int), tracklet, np.zeros(60, int))
    assert not result.clusters.merges and result.evidence is None


def frame_by_frame_in_loops(tracklets: Tracklets, kept: Members, space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Of the pairs that share frames, image by image, and those pairs."""
    pairs = thresholds.sample_pairs(tracklets, kept).strangers
    made = space(tracklets.features.astype(np.float64))
    rows = [np.flatnonzero(tracklets.tracklet == each) for each in range(len(kept.names))]
    distances = []
    for one, other in pairs.tolist():
        products = [
            made[i] @ made[j]
            for i in rows[one]
            for j in rows[other]
            if tracklets.frame_key[i] == tracklets.frame_key[j]
        ]
        length = np.linalg.norm(made[rows[one]].mean(axis=0)) * np.linalg.norm(made[rows[other]].mean(axis=0))
        distances.append(1 - np.mean(products) / length)
    return np.array(distances), pairs


def test_frame_by_frame_is_what_plain_loops_say() -> None:
    tracklets, kept = arranged(sample_of(SMALL))
    for name in ("total", "within"):
        expected, pairs = frame_by_frame_in_loops(tracklets, kept, only(tracklets, kept, name))
        assert len(pairs) > 100
        np.testing.assert_allclose(
            thresholds.frame_by_frame(tracklets, kept, pairs, only(tracklets, kept, name)),
            expected,
            rtol=1e-4,
            atol=1e-4,
        )


def without(sample: Sample, keep: np.ndarray) -> Sample:
    return Sample(*(values[keep] for values in sample))


def shuffled(sample: Sample, seed: int) -> Sample:
    """Each tracklet shows somebody new, however many people there were."""
    random = np.random.default_rng(seed)
    somebody = random.standard_normal((sample.tracklet.max() + 1, sample.features.shape[1]))
    noise = random.standard_normal(sample.features.shape)
    return sample._replace(features=somebody[sample.tracklet] + 0.4 * noise)


def assert_nobody_is_linked(result: Denoised) -> None:
    assert result.settings.tau == 0 and not result.clusters.merges
    (line,) = result.warnings
    assert line.startswith("tracklets are cleaned, not linked: ") and "give --tau" in line


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frames", [True, False])
def test_where_tracklets_have_nothing_in_common_nobody_is_linked(seed: int, frames: bool) -> None:
    sample = shuffled(sample_of(SMALL), seed)
    assert_nobody_is_linked(denoise(*sample[:4], Denoising(frames=frames)))


@pytest.mark.parametrize("seed", range(3))
def test_where_features_are_unrelated_to_tracklets_nobody_is_linked(seed: int) -> None:
    sample = sample_of(SMALL)
    features = np.random.default_rng(seed).permutation(sample.features)
    assert_nobody_is_linked(denoise(features, *sample[1:4]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frames", [True, False])
def test_where_everybody_is_seen_once_nobody_is_taken_for_another(seed: int, frames: bool) -> None:
    world = replace(ONCE, seed=seed)
    result = denoised(world, frames=frames)
    people = len(np.unique(sample_of(world).tracklet))
    assert scores(world, result.labels).precision > 0.95 and 0.97 * people < result.labels.max() + 1 <= people


def test_too_few_pairs_say_nothing_and_a_line_names_the_remedy() -> None:
    sample = sample_of(SMALL)
    some = without(sample, sample.tracklet < 6)
    result = denoise(*some[:4])
    assert_nobody_is_linked(result)
    assert "too few pairs" in result.warnings[0] and result.evidence is None
    assert (
        denoise(*some[:4], Denoising(tau=1.5)).labels.max() + 1 < 6
        and not denoise(*some[:4], Denoising(tau=0)).warnings
    )


def test_a_level_that_links_nobody_says_so() -> None:
    lines = denoised(SMALL, tau=1e-4).warnings
    assert [line[:7] for line in lines] == ["level 2", "level 3"] and all("tau 0.0001" in line for line in lines)


@pytest.mark.parametrize("sigma", [0.18, 2.0], ids=["cleaned", "as they are"])
def test_switches_of_the_tracker_do_not_spoil_tau(sigma: float) -> None:
    """Tracklets of two people that are alike and share frames are not taken for strangers who come near."""
    ratios = []
    for seed in range(3):
        clean = replace(SMALL, width=64, switches=0, seed=seed)
        spoilt = replace(clean, switches=0.3)
        one, other = (denoised(world, whiten="total", sigma=sigma) for world in (clean, spoilt))
        ratios.append(float(other.settings.tau) / float(one.settings.tau))
        precision, _, f1, *_ = scores(spoilt, other.labels)
        assert min(precision, f1) > (0.85 if sigma < 1 else 0.6)
    assert 1 / 1.5 < np.median(ratios) < 1.5


@pytest.mark.parametrize("seed", range(3))
def test_switches_of_the_tracker_do_not_spoil_sigma(seed: int) -> None:
    """Half of the images are in tracklets of two people; of each, those of one are dropped."""
    clean = replace(SMALL, width=64, switches=0, seed=seed)
    spoilt = replace(clean, switches=0.3)
    one, other = (denoised(world) for world in (clean, spoilt))
    assert float(other.settings.sigma) < 2 * float(one.settings.sigma)
    assert scores(spoilt, other.labels).precision > 0.9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", [EASY, SMALL], ids=["easy", "usual"])
def test_half_and_one_and_a_half_times_tau_keep_precision(world: FeatureWorld, seed: int) -> None:
    world = replace(world, identities=100, videos=17, width=64, seed=seed)
    result = denoised(world)
    precision = scores(world, result.labels).precision
    assert precision > 0.9
    for factor in (0.5, 1.5):
        other = denoise(*sample_of(world)[:4], replace(result.settings, tau=factor * float(result.settings.tau)))
        assert abs(scores(world, other.labels).precision - precision) < 0.15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", [EASY, SMALL, replace(SMALL, bias=0.9)], ids=["easy", "usual", "strong bias"])
def test_auto_is_clearly_better_than_raw_tracklets(world: FeatureWorld, seed: int) -> None:
    world = replace(world, seed=seed)
    result = denoised(world)
    assert not result.warnings and result.evidence is not None
    assert scores(world, result.labels).f1 > scores(world, sample_of(world).tracklet).f1 + 0.4


# A tau that is given.


def test_the_limit_is_where_right_links_outnumber_wrong_ones_by_the_most() -> None:
    tracklets, kept = arranged(sample_of(SMALL))
    space = only(tracklets, kept)
    steps = np.array([0.1, 0.2, 0.3, 0.4])

    def limit(near: list[int], by_chance: list[int]) -> float:
        return Evidence(space, steps, np.array(near), np.array(by_chance), 0.0, 0.0, 0.0).limit

    assert limit([5, 20, 30, 50], [0, 1, 5, 20]) == 0.3  # of the last 20 links 15 are wrong
    assert limit([5, 20, 30, 50], [0, 1, 5, 14]) == 0.4  # 9
    assert limit([0, 2, 10, 40], [0, 1, 5, 30]) == 0.0  # at no distance are more right than wrong


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("world", [EASY, SMALL, replace(SMALL, noise=0.9, bias=0.6), ONCE])
def test_the_tau_that_is_found_is_below_the_limit_and_may_be_given(world: FeatureWorld, frames: bool) -> None:
    found = denoised(world, frames=frames)
    assert found.evidence is not None and found.settings.tau <= found.evidence.limit
    if found.settings.tau:
        given = denoise(*sample_of(world)[:4], found.settings)
        assert given.settings == found.settings and not given.warnings
        np.testing.assert_array_equal(given.labels, found.labels)


def strangers_apart(denoised: Denoised) -> float:
    """The median distance of tracklets that share a frame."""
    clusters = denoised.clusters
    one, other = clusters.vectors[thresholds.sample_pairs(clusters.tracklets, clusters.members).strangers.T]
    return float(np.median(1 - (one * other).sum(axis=1)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("world", [EASY, SMALL, replace(SMALL, bias=0.9)], ids=["easy", "usual", "strong bias"])
def test_twice_the_distance_of_strangers_does_not_make_one_of_them(world: FeatureWorld, seed: int) -> None:
    world = replace(world, width=64, seed=seed)
    far = min(2 * strangers_apart(denoised(world, tau=0)), 2.0)
    cut, trusted = (denoised(world, tau=far, trust_tau=trust) for trust in (False, True))
    assert cut.evidence is not None and cut.settings.tau == cut.evidence.limit < strangers_apart(cut) < far
    assert scores(world, cut.labels).precision > 0.8 > 0.5 > scores(world, trusted.labels).precision
    (line,) = cut.warnings
    assert line.startswith(f"tau {far:.4g} is cut to {cut.evidence.limit:.4g}: ") and "give --trust-tau" in line
    assert trusted.settings.tau == far and not trusted.warnings
    assert not denoised(world, tau=far, levels=1).warnings


@pytest.mark.parametrize("seed", range(3))
def test_where_tracklets_have_nothing_in_common_a_given_tau_links_nearly_nobody(seed: int) -> None:
    sample = shuffled(sample_of(SMALL), seed)
    tracklets = sample.tracklet.max() + 1
    cut, trusted = (denoise(*sample[:4], Denoising(tau=0.9, trust_tau=trust)) for trust in (False, True))
    assert cut.labels.max() + 1 > 0.95 * tracklets > 0.5 * tracklets > trusted.labels.max() + 1
    assert "--trust-tau" in cut.warnings[0]


def test_without_evidence_a_tau_is_taken_as_it_is_given() -> None:
    sample = sample_of(SMALL)
    some = without(sample, sample.tracklet < 6)
    one, other = (denoise(*some[:4], Denoising(tau=1.5, trust_tau=trust)) for trust in (False, True))
    assert one.evidence is None and one.settings.tau == 1.5 and not any("is cut" in line for line in one.warnings)
    np.testing.assert_array_equal(one.labels, other.labels)


# Which space.


@pytest.mark.parametrize("tau", ["auto", 0.3])
def test_auto_takes_the_space_with_the_most_right_links(tau: Any) -> None:
    tracklets, kept = arranged(sample_of(replace(SMALL, noise=0.7)))
    made = list(spaces(tracklets.features, kept, ("total", "within")))
    single = [estimate_tau(tracklets, kept, [space]) for space in made]
    assert all(isinstance(each, Evidence) for each in single)
    links = [each.links - each.false for each in single if each is not None]
    best = estimate_tau(tracklets, kept, made)
    assert best is not None and best.space is made[int(np.argmax(links))] and links[0] != links[1]
    result = denoised(replace(SMALL, noise=0.7), tau=tau)
    assert result.evidence is not None and result.settings.whiten == result.evidence.space.name
    assert result.settings.tau == (result.evidence.tau if tau == "auto" else tau)


# The command that measures all this.


def test_features_of_ones_own_are_scored_by_video_and_by_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = sample_of(SMALL)
    clips = {"clip": drawn.video, "tracklet_of_clip": drawn.tracklet}
    np.savez(tmp_path / "mine.npz", **drawn._asdict() | clips)
    denoising.main(features=(tmp_path / "mine.npz",), alone=True)
    expected = agreement(denoise(*drawn[:4]).labels, drawn.identity).f1
    for part in capsys.readouterr().out.split("mine.npz, by clips"):
        row = next(line for line in part.splitlines() if line.startswith("| levels 1 + 2 + 3, auto"))
        assert f"| {expected:.3f} |" in row
