"""A threshold by a false match rate: what pairs it is told by, and how sure it is."""

import numpy as np
import pytest
from scipy.stats import beta
from test_gallery import gallery_of

from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from cion_jax.gallery.answers import ask
from cion_jax.gallery.rows import make_rows
from cion_jax.gallery.store import Gallery
from cion_jax.gallery.threshold import choose_threshold, different_pairs, rate_with_interval


def labels_of(video: list[int], tracklet: list[int], frame: list[int]) -> np.ndarray:
    labels = np.zeros(len(video), LABELS)
    labels["video"], labels["tracklet"], labels["frame"] = video, tracklet, frame
    return labels


def test_those_are_two_who_share_a_frame_of_one_video() -> None:
    video = [0, 0, 0, 0, 1, 1, -1, -1, 2, 2]
    tracklet = [5, 3, 3, 4, 6, 7, 8, 9, 10, -1]
    frame = [0, 0, 1, 1, 0, 1, 0, 0, -1, -1]
    assert different_pairs(labels_of(video, tracklet, frame)).tolist() == [[3, 4], [3, 5]]


def test_the_rate_is_that_of_all_comparisons_counted_by_hand() -> None:
    gallery = gallery_of(spread=1.0)
    chosen = choose_threshold(gallery, 0.02, "image")
    assert chosen is not None
    rows, features = gallery.rows, gallery.features
    shares, larger = [], []
    for one, other in different_pairs(rows):
        distance = 1 - features[rows["tracklet"] == one] @ features[rows["tracklet"] == other].T
        shares.append(np.mean(distance < chosen.distance))
        larger.append(np.mean(distance <= chosen.distance + 1e-6))
    assert chosen.rate == pytest.approx(np.mean(shares)) and np.mean(shares) <= 0.02 < np.mean(larger)
    assert (chosen.pairs, chosen.tracklets, chosen.comparisons) == (150, 60, 150 * 64)
    assert chosen.low < chosen.rate < chosen.high


def test_the_more_images_an_answer_has_the_smaller_is_its_threshold() -> None:
    gallery = gallery_of(spread=1.0)
    by_image, by_tracklet, by_person = (choose_threshold(gallery, 0.02, by) for by in ("image", "tracklet", "person"))
    assert by_image and by_tracklet and by_person
    assert by_person.distance < by_tracklet.distance < by_image.distance


def test_pairs_that_a_labelling_calls_one_person_do_not_count_where_answers_are_people() -> None:
    gallery = gallery_of()
    wrong = gallery.rows.copy()
    wrong["person"][wrong["tracklet"] == 2] = b"0"  # tracklets 0 and 2 share frames
    assert (choose := choose_threshold(Gallery(gallery.features, wrong), 0.02, "person")) and choose.pairs == 149


def test_a_long_tracklet_counts_as_much_as_a_short_one() -> None:
    gallery = gallery_of(spread=1.0)
    chosen = choose_threshold(gallery, 0.02)
    again = np.flatnonzero(gallery.rows["tracklet"] == 0).repeat(2)  # 16 images: as many as may ask
    twice = np.concatenate([again, np.flatnonzero(gallery.rows["tracklet"] != 0)])
    longer = choose_threshold(Gallery(gallery.features[twice], gallery.rows[twice]), 0.02)
    assert chosen and longer and longer.distance == pytest.approx(chosen.distance)
    assert longer.comparisons > chosen.comparisons


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
