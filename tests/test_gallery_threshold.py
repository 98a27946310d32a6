"""A threshold by a false match rate: what pairs it is told by, and how sure it is."""

import re
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import beta
from test_gallery import EACH, TRACKLETS, gallery_of

from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from cion_jax.gallery.answers import ask
from cion_jax.gallery.rows import make_rows
from cion_jax.gallery.store import Gallery
from cion_jax.gallery.threshold import choose_threshold, rate_with_interval, two_people


def labels_of(video: list[int], tracklet: list[int], frame: list[int]) -> np.ndarray:
    labels = np.zeros(len(video), LABELS)
    labels["video"], labels["tracklet"], labels["frame"] = video, tracklet, frame
    return labels


def test_those_are_two_whom_one_frame_of_a_video_shows() -> None:
    video = [0, 0, 0, 0, 1, 1, -1, -1, 2, 2, 0]
    tracklet = [5, 3, 3, 4, 6, 7, 8, 9, 10, -1, 3]
    frame = [0, 0, 1, 1, 0, 1, 0, 0, -1, -1, 0]
    images = two_people(labels_of(video, tracklet, frame))
    assert {frozenset(pair) for pair in images.tolist()} == {frozenset(pair) for pair in [(0, 1), (0, 10), (2, 3)]}
    assert two_people(labels_of([], [], [])).shape == (0, 2)


def test_the_rate_is_that_of_all_comparisons_counted_by_hand() -> None:
    gallery = gallery_of(spread=1.0)
    chosen = choose_threshold(gallery, 0.02)
    assert chosen is not None
    rows, features = gallery.rows, gallery.features
    below = []
    for one, other in combinations(range(len(rows)), 2):
        if all(rows[name][one] == rows[name][other] for name in ("video", "frame")):
            below.append(1 - features[one] @ features[other] - chosen.distance)
    assert (chosen.comparisons, chosen.pairs, chosen.tracklets) == (len(below), 150, 60) == (150 * EACH, 150, 60)
    assert chosen.rate == pytest.approx(np.mean(np.array(below) < -1e-6)) and chosen.rate <= 0.02
    assert np.mean(np.array(below) < 1e-6) > 0.02
    assert chosen.low < chosen.rate < chosen.high


def test_a_tracker_that_changes_over_from_one_person_to_another_does_no_harm() -> None:
    gallery = gallery_of(spread=0.6)
    chosen = choose_threshold(gallery, 0.02)
    swapped = np.arange(len(gallery.rows))
    for late in range(EACH // 2, EACH):  # from some frame on tracklets 0 and 2, and 1 and 3, and so on, are swapped
        for first in range(0, TRACKLETS, 4):
            for one, other in ((first, first + 2), (first + 1, first + 3)):
                swapped[[one * EACH + late, other * EACH + late]] = [other * EACH + late, one * EACH + late]
    after = choose_threshold(Gallery(gallery.features[swapped], gallery.rows), 0.02)
    assert chosen and after and after.distance == pytest.approx(chosen.distance)


def test_a_pair_that_is_long_together_counts_as_much_as_a_short_one() -> None:
    gallery = gallery_of(spread=1.0)
    chosen = choose_threshold(gallery, 0.02)
    together = np.isin(gallery.rows["tracklet"], [0, 2])
    later = gallery.rows[together].copy()
    later["frame"] += 1000
    rows = np.concatenate([gallery.rows, later])
    longer = choose_threshold(Gallery(np.concatenate([gallery.features, gallery.features[together]]), rows), 0.02)
    assert chosen and longer and longer.distance == pytest.approx(chosen.distance)
    assert (longer.comparisons, longer.pairs) == (chosen.comparisons + EACH, chosen.pairs)


def test_strangers_match_at_the_rate_that_was_asked_for() -> None:
    """Of other people of the same kind, within the interval."""
    chosen = choose_threshold(gallery_of(0, spread=1.0), 0.05)
    assert chosen
    rates = []
    for seed in range(1, 9):
        other = gallery_of(seed, spread=1.0)
        person = other.rows["person"]
        distance = 1 - other.features @ other.features.T
        rates.append(np.mean(distance[person[:, None] != person] < chosen.distance))
    assert chosen.low < np.mean(rates) < chosen.high


def test_the_interval_knows_that_pairs_share_tracklets() -> None:
    independent = np.arange(200).reshape(100, 2)
    share = np.zeros(100)
    share[:10] = 1
    rate, low, high = rate_with_interval(share, independent)
    expected = beta.ppf([0.025, 0.975], [10, 11], [91, 90])
    np.testing.assert_allclose((rate, low, high), (0.1, *expected), rtol=1e-6)
    star = np.stack([np.zeros(100, int), np.arange(1, 101)], axis=1)
    bunched = np.stack([np.arange(100) // 10, 10 + np.arange(100)], axis=1)  # the ten are of one tracklet
    assert rate_with_interval(share, bunched)[2] > 1.5 * high
    assert rate_with_interval(np.zeros(100), independent)[1:] == (0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert rate_with_interval(np.zeros(100), star)[2] == pytest.approx(1 - 0.025 ** (1 / 50.5))


def test_how_sure_a_match_is_stands_beside_it() -> None:
    gallery = gallery_of(spread=1.0)
    answers = ask(gallery, gallery.features[:1], ["a"], false_match_rate=0.0125)
    says = answers.about_threshold()
    assert re.search(
        r" 1\.2 % of pairs of images .* \(at 95% confidence 0\.\d+ % to \d\.\d %\): measured in 1,200 ", says
    )
    assert "of 60 tracklets" in says and says.endswith("matches 6 of the 480 images, on average.")


def test_where_nobody_shares_a_frame_there_is_no_threshold() -> None:
    gallery = gallery_of()
    alone = np.flatnonzero(gallery.rows["tracklet"] % 12 == 0)
    lonely = Gallery(gallery.features[alone], gallery.rows[alone])
    answers = ask(lonely, gallery.features[:2], ["a", "b"])
    assert answers.threshold is None and {each["match"] for each in answers.of(0)} == {None}
    assert answers.about_threshold().startswith("No answer is called a match: no two tracklets of the index share")
    given = ask(lonely, gallery.features[:2], ["a", "b"], threshold=0.5)
    assert next(given.of(0))["match"] and given.about_threshold() == "A match is nearer than 0.5, as given."
    empty = make_rows(np.full(5, -1, np.int32).repeat(5).view(LABELS))
    assert choose_threshold(Gallery(gallery.features[:5], empty)) is None


@pytest.mark.parametrize("wrong", [0, 1, -0.1, 2])
def test_rates_that_are_none_are_refused(wrong: float) -> None:
    with pytest.raises(UserError, match="must be between 0 and 1"):
        choose_threshold(gallery_of(), wrong)
