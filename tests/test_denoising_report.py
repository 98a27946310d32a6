"""The sweep of tau, and the page that shows what denoising saw and did."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from cion_jax.config import Denoising, Writing
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.denoise import sweep as sweep_module
from cion_jax.denoise.clusters import Clusters, merge_near
from cion_jax.denoise.denoise import Denoised, denoise
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.denoise.near import near
from cion_jax.denoise.noise import windows
from cion_jax.denoise.sweep import UP_TO_TAU, VALUES, share_frame, sweep
from cion_jax.report.denoising import denoising, denoising_sections, sheets
from cion_jax.report.linked import dropped_images, merged_identities, nearest_apart, pairs_not_linked
from cion_jax.report.page import Part, page, subheading
from cion_jax.report.tau import choice_of_tau, distances_seen
from experiments.feature_world import FeatureWorld, draw
from pages import Page, can_be_seen
from sources import Blocks
from tfrecords_tools.tracklet_names import names_file, write_names

FIXED = Denoising(sigma=0.3, tau=0.3, whiten="none", video_mean=False)


@pytest.fixture(scope="module")
def tracked() -> TrackedFeatures:
    return TrackedFeatures(*draw(FeatureWorld(identities=60, videos=12, width=32))[:4])


@pytest.fixture(scope="module")
def auto(tracked: TrackedFeatures) -> Denoised:
    """With sigma and tau that auto found."""
    return denoise(*tracked)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrackedFeatures, Denoised, Records]:
    """Three people in turn, two to a video; images 7 and 28 show nobody, 12 the other person of its video."""
    folder = tmp_path_factory.mktemp("crowd") / "data"
    names = [(tracklet, tracklet // 2, f"film{tracklet // 2}.mp4", f"#{tracklet % 2}") for tracklet in range(12)]
    write_dataset(folder, {"train": Blocks(60)}, Writing(workers=1), {names_file("train"): write_names(names)})
    records = Records(folder)
    tracklet = np.array(records.index["tracklet"])
    random = np.random.default_rng(0)
    people = np.eye(8)[:3]
    rows = people[tracklet % 3] + 0.05 * random.standard_normal((60, 8))
    rows[[7, 28]] = np.eye(8)[5]
    rows[12] = people[tracklet[17] % 3]
    frame = np.arange(60) % 5
    frame[12] = 7  # where nobody else is, so that the other tracklet of the video may adopt it
    tracked = TrackedFeatures(rows, np.array(records.index["video"]), tracklet, frame)
    return tracked, denoise(*tracked, FIXED), records


def text_of(parts: Iterable[Part]) -> str:
    return page("", parts)


# The sweep.


def linked_afresh(clusters: Clusters, tau: float) -> Clusters:
    fresh = Clusters(clusters.tracklets, clusters.members, clusters.vectors)
    merge_near(fresh, near(fresh.vectors, windows(len(fresh.vectors), None), tau), tau)
    return fresh


def together(clusters: Clusters) -> np.ndarray:
    """(T, T) pairs of tracklets of one cluster."""
    return np.triu(clusters.cluster[:, None] == clusters.cluster, 1)


def test_each_value_has_the_partition_that_linking_afresh_makes(auto: Denoised) -> None:
    steps = sweep(auto.clusters, 0.6)
    assert len(steps) == VALUES + 1 and steps[0].tau == 0 and steps[UP_TO_TAU].tau == 0.6
    assert steps[-1].tau == pytest.approx(0.9)
    before = np.zeros((len(auto.clusters.vectors),) * 2, bool)
    distance = 1 - auto.clusters.vectors @ auto.clusters.vectors.T
    pairs = np.argwhere(np.triu(np.ones(distance.shape, bool), 1))
    forbidden = pairs[share_frame(auto.clusters, pairs)]
    for step in steps:
        fresh = linked_afresh(auto.clusters, step.tau)
        pairs = together(fresh)
        assert (step.identities, step.merged) == (len(fresh.numbers), pairs.sum())
        union = (pairs | before).sum()
        assert step.stability == pytest.approx((pairs & before).sum() / union if union else 1)
        assert step.forbidden == np.count_nonzero(distance[forbidden[:, 0], forbidden[:, 1]] < step.tau)
        before = pairs
    assert steps[-1].forbidden > 0


def test_identities_fall_and_merged_pairs_rise(auto: Denoised) -> None:
    identities, merged = np.array([(step.identities, step.merged) for step in sweep(auto.clusters, 0.5)]).T
    assert (np.diff(identities) <= 0).all() and (np.diff(merged) >= 0).all()
    assert identities[0] == len(auto.clusters.vectors) and merged[0] == 0
    assert identities[-1] < identities[0] / 2 and merged[-1] > 100


def test_without_frames_no_link_is_forbidden(tracked: TrackedFeatures) -> None:
    for denoised in (denoise(*tracked, Denoising(frames=False)), denoise(*tracked._replace(frame=None))):
        assert all(step.forbidden == 0 for step in sweep(denoised.clusters, 0.9))


def test_the_clusters_themselves_stay_as_they_are(auto: Denoised) -> None:
    clusters = auto.clusters
    before = clusters.labels(), len(clusters.merges), clusters.sums.copy()
    sweep(clusters, 0.9)
    np.testing.assert_array_equal(clusters.labels(), before[0])
    np.testing.assert_array_equal(clusters.sums, before[2])
    assert len(clusters.merges) == before[1]


def test_frames_are_compared_part_by_part(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(auto.clusters.vectors)
    pairs = np.argwhere(np.triu(np.ones((count, count), bool), 1))
    kept = auto.clusters.members
    frame_key = auto.clusters.tracklets.frame_key
    frames = [set(frame_key[kept.images[kept.row == row]].tolist()) for row in range(count)]
    plain = [not frames[one].isdisjoint(frames[other]) for one, other in pairs.tolist()]
    assert 0 < sum(plain) < len(plain)
    monkeypatch.setattr(sweep_module, "TOGETHER", 1000)
    np.testing.assert_array_equal(share_frame(auto.clusters, pairs), plain)


def test_rows_are_compared_part_by_part(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(auto.clusters, 0.5)
    monkeypatch.setattr(sweep_module, "ROWS", 7)
    assert sweep(auto.clusters, 0.5) == whole


def test_the_sweep_ends_where_too_many_pairs_are_near(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep(auto.clusters, 0.5)
    monkeypatch.setattr(sweep_module, "MOST", 500)
    monkeypatch.setattr(sweep_module, "ROWS", 50)
    part = sweep(auto.clusters, 0.5)
    assert 3 < len(part) < len(whole) and part == whole[: len(part)]
    monkeypatch.setattr(sweep_module, "MOST", 0)
    assert sweep(auto.clusters, 0.9) == []


def test_the_sweep_is_left_out(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep(auto.clusters, 0.0) == []
    monkeypatch.setattr(sweep_module, "LARGEST", 10)
    assert sweep(auto.clusters, 0.5) == []


def test_without_tau_the_sweep_goes_as_far_as_the_evidence(auto: Denoised) -> None:
    assert auto.evidence is not None
    steps = sweep(auto.clusters, 0.0, auto.evidence)
    assert steps[-1].tau == pytest.approx(auto.evidence.steps[-1]) and len(steps) == VALUES + 1
    assert steps[-1].merged > 0


# How tau was chosen, in words.


def test_links_below_tau_and_those_by_chance_are_told(auto: Denoised) -> None:
    evidence = auto.evidence
    assert evidence is not None
    at = np.flatnonzero(evidence.steps == evidence.tau)[0]
    text = text_of(choice_of_tau(auto))
    assert f"{evidence.near[at]:,.0f} pairs of tracklets are nearer than tau" in text
    assert f"About {evidence.by_chance[at]:,.0f} of them" in text
    assert f"{evidence.links:,.0f} links are trusted" in text
    assert f"<td>{evidence.tau:#.4g}, chosen</td>" in text
    assert text.count("<svg") == 2 and text.count(f"tau {evidence.tau:.4g} is marked") == 2


def test_a_given_tau_is_called_so(auto: Denoised) -> None:
    assert auto.evidence is not None
    tau = float(auto.evidence.tau)
    given = auto._replace(settings=replace(auto.settings, tau=0.9 * tau))
    assert "tau was given, not found." in text_of(choice_of_tau(given))
    beyond = auto._replace(settings=replace(auto.settings, tau=1.9))
    assert "beyond the distances at which links by chance" in text_of(choice_of_tau(beyond))
    alone = text_of(choice_of_tau(given._replace(evidence=None)))
    assert "links by chance were not counted" in alone and alone.count("<svg") == 1
    one = auto._replace(settings=replace(auto.settings, levels=1))
    assert "Only level 1 was run" in text_of(choice_of_tau(one))


def test_without_links_the_page_says_why(auto: Denoised) -> None:
    assert auto.evidence is not None
    nothing = auto._replace(settings=replace(auto.settings, tau=0.0))
    text = text_of(choice_of_tau(nothing))
    assert "no tracklet was linked to another. It was given so" in text
    assert "chosen</td>" not in text and text.count("tau is 0") == 3  # in words, and in two alternative texts
    unsure = nothing._replace(evidence=auto.evidence._replace(tau=0.0))
    assert "At no distance are there enough links" in text_of(choice_of_tau(unsure))
    text = text_of(choice_of_tau(nothing._replace(evidence=None)))
    assert (
        "too few pairs of tracklets share a frame" in text
        and "<svg" not in text
        and "<table" not in text
        and "not tried" not in text
    )


def test_a_missing_or_shortened_sweep_is_told(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = auto._replace(settings=replace(auto.settings, tau=0.9))
    monkeypatch.setattr(sweep_module, "MOST", 500)
    assert "too many pairs of tracklets are near to try more values" in text_of(choice_of_tau(wide))
    monkeypatch.setattr(sweep_module, "MOST", 0)
    assert "not tried: too many pairs" in text_of(choice_of_tau(wide))
    monkeypatch.setattr(sweep_module, "LARGEST", 10)
    monkeypatch.setattr("cion_jax.report.tau.LARGEST", 10)
    assert "tracklets are more than 10." in text_of(choice_of_tau(wide))


# The page.


def test_the_page_has_its_pictures_with_alternative_texts(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    text = denoising(*crowd)
    seen = Page(text)
    assert len(seen.pictures) > 20 and len(seen.drawings) == 3  # one space: there is no evidence
    assert all(picture["alt"].strip() and can_be_seen(picture) for picture in seen.pictures)
    assert "12 tracklets of 6 videos became 3 identities; 58 of 60 images were kept" in text


def test_without_records_there_are_charts_alone(tracked: TrackedFeatures, auto: Denoised) -> None:
    text = text_of(denoising_sections(tracked, auto, title=subheading))
    seen = Page(text)
    assert len(seen.pictures) == len(seen.drawings) == 4 and all(picture["alt"] for picture in seen.drawings)
    assert "<h2" not in text and text.count("<h3") == 3 and "(space: " in text


def test_warnings_stand_out(tracked: TrackedFeatures, auto: Denoised) -> None:
    warned = auto._replace(warnings=("no <b> link", "give --tau"))
    text = text_of(denoising_sections(tracked, warned))
    assert text.count('role="note"') == 2
    assert "<strong>Take care:</strong> no &lt;b&gt; link." in text and "</strong> give <code>--tau</code>." in text


def test_near_identities_of_one_frame_are_told(tracked: TrackedFeatures, auto: Denoised) -> None:
    text = "stay two identities since a frame shows both"
    assert text not in text_of(denoising_sections(tracked, auto._replace(cannot_link=0)))
    assert f"1,234 near pairs {text}" in text_of(denoising_sections(tracked, auto._replace(cannot_link=1234)))


@pytest.mark.parametrize("tracklets", [1, 2])
def test_a_single_tracklet_or_two_make_a_page(tracklets: int) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((6, 4)) + 3
    tracked = TrackedFeatures(rows, np.zeros(6, int), np.arange(6) % tracklets, None)
    text = denoising(tracked, denoise(*tracked))
    assert ("There is only one tracklet" in text) == (tracklets == 1)
    assert text.count("<svg") == tracklets and "sharing a frame" not in text


def test_pairs_of_a_frame_are_drawn_apart(auto: Denoised, tracked: TrackedFeatures) -> None:
    assert "others and sharing a frame" in text_of(distances_seen(auto))
    without = denoise(*tracked._replace(frame=None))
    assert "between tracklets: others;" in text_of(distances_seen(without))


# Pictures of what was done.


def test_merged_identities_are_shown_with_what_became_of_their_tracklets(
    crowd: tuple[TrackedFeatures, Denoised, Records],
) -> None:
    text = text_of(merged_identities(*crowd))
    assert text.count("4 tracklets of 4 videos") == 3 and all(f", {count} images" in text for count in (21, 19, 18))
    cells = [[cell.split("</td>")[0] for cell in row.split("<td>")[1:]] for row in text.split("<tr>")]
    rows = {row[0]: row[1:] for row in cells if row}
    assert len(rows) == 12
    assert rows["1"] == ["0", "5", "1", "0", "4", "film0.mp4, #1"]  # image 7 is nobody's
    # image 12 went over
    assert rows["2"] == ["1", "5", "1", "0", "4", "film1.mp4, #0"]
    assert rows["3"] == [
        "1",
        "5",
        "0",
        "1",
        "6",
        "film1.mp4, #1",
    ]
    assert rows["4"] == ["2", "5", "0", "0", "5", "film2.mp4, #0"]


def test_without_merged_identities_the_page_says_so(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    tracked, _, records = crowd
    alone = denoise(*tracked, replace(FIXED, tau=0.0))
    assert "No identity has more than one tracklet" in text_of(merged_identities(tracked, alone, records))
    assert "Nothing was linked." in text_of(pairs_not_linked(tracked, alone, records))


def test_dropped_images_are_shown_farthest_first(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    text = text_of(dropped_images(*crowd))
    assert "3 images were dropped; tracklets of their videos adopted 1 of them" in text
    says = [str(picture["alt"]) for picture in Page(text).pictures]
    fates = {each.split(",")[0]: each.split("then ")[1] for each in says}
    assert fates == {"image 7": "nobody's", "image 28": "nobody's", "image 12": "adopted"}
    assert any("image 12, dropped from tracklet 2 at" in each for each in says)
    far = [float(each.split("distance ")[1].split(",")[0]) for each in says]
    assert far == sorted(far, reverse=True) and far[0] > far[-1]
    tracked, _, records = crowd
    whole = denoise(*tracked, replace(FIXED, sigma=2.0))
    assert "No image was dropped" in text_of(dropped_images(tracked, whole, records))


def test_the_nearest_pairs_apart_are_those_of_a_plain_search(auto: Denoised, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = auto.clusters
    distance = np.where(together(clusters), np.inf, 1 - clusters.vectors @ clusters.vectors.T)
    distance[np.tril_indices(len(distance))] = np.inf
    for rows in (512, 30):
        monkeypatch.setattr("cion_jax.report.linked.ROWS", rows)
        pairs, nearest = nearest_apart(clusters, 20)
        np.testing.assert_allclose(nearest, np.sort(distance, axis=None)[:20])
        np.testing.assert_allclose(distance[pairs[:, 0], pairs[:, 1]], nearest)
    monkeypatch.setattr("cion_jax.report.linked.AMONG", 50)
    pairs, nearest = nearest_apart(clusters, 20)
    assert len(np.unique(pairs)) <= 50
    np.testing.assert_allclose(distance[pairs[:, 0], pairs[:, 1]], nearest)


def test_pairs_are_apart_for_a_reason(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    tracked, _, records = crowd

    def text(denoised: Denoised) -> str:
        return text_of(pairs_not_linked(tracked, denoised, records))

    rows = tracked.features.copy()
    rows[5:10] = rows[0:5]  # tracklet 1 looks like tracklet 0, and shares its frames
    alike = denoise(rows, *tracked[1:], FIXED)
    assert "A frame shows both: they are two people." in text(alike)
    assert "A frame shows both of their identities" in text(alike)
    assert "They are farther apart than tau 0.3." in text(denoise(rows, *tracked[1:3], None, FIXED))
    assert "They were not compared" in text(denoise(*tracked[:3], None, replace(FIXED, levels=1)))


def test_identities_apart_on_average_are_told_so(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    """Four tracklets along an arc: the inner two are near, their identities are not."""
    _, _, records = crowd
    angle = np.repeat([0.0, 0.5, 1.05, 1.5], 15)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    tracked = TrackedFeatures(rows, np.repeat(np.arange(4), 15), np.repeat(np.arange(4), 15), None)
    arc = denoise(*tracked, replace(FIXED, tau=0.16))
    text = text_of(pairs_not_linked(tracked, arc, records))
    average = 1 - np.cos([1.05, 1.5, 0.55, 1.0]).mean()
    assert f"distance {1 - np.cos(0.55):.3f}. Their identities are {average:.3f} apart on average" in text
    one = denoise(*tracked, replace(FIXED, tau=2.0))
    assert "No two tracklets are of two identities" in text_of(pairs_not_linked(tracked, one, records))


def test_many_tracklets_are_sampled_and_told(
    crowd: tuple[TrackedFeatures, Denoised, Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cion_jax.report.linked.AMONG", 5)
    monkeypatch.setattr("cion_jax.report.linked.TRACKLETS", 3)
    assert "Sought among 5 tracklets" in text_of(pairs_not_linked(*crowd))
    assert "the first 3 tracklets are shown" in text_of(merged_identities(*crowd))


def test_a_labelling_is_shown_by_its_identities(crowd: tuple[TrackedFeatures, Denoised, Records]) -> None:
    _, denoised, records = crowd
    text = text_of(sheets(records, denoised.labels))
    assert all(f": {count} images" in text for count in (21, 19, 18))
    assert text.count(": 5 tracklets") == 1 and text.count(": 4 tracklets") == 2  # one has adopted an image of a fifth
    assert len(Page(text).pictures) == 60
