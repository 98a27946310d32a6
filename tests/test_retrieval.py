"""Mean average precision: equal to plain loops and to an example by hand, whatever the blocks."""

import numpy as np
import pytest

from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from cion_jax.evaluate.retrieval import Scores, mean_average_precision


def who(*rows: tuple[int, int]) -> np.ndarray:
    """Labels from pairs of identity and camera."""
    labels = np.zeros(len(rows), LABELS)
    labels["identity"], labels["camera"] = np.transpose(rows)
    return labels


def with_cosines(*cosines: float) -> np.ndarray:
    """Unit vectors that have these cosines with (1, 0)."""
    return np.array([(c, np.sqrt(1 - c * c)) for c in cosines], np.float32)


def plainly(query: np.ndarray, gallery: np.ndarray, asking: np.ndarray, labels: np.ndarray) -> Scores:
    """The protocol as a person would tell it."""
    precisions, firsts, left_out = [], [], 0
    for feature, one in zip(query, asking, strict=True):
        cosines = [float(np.dot(feature.astype(float), other.astype(float))) for other in gallery]
        place, found, precision, first = 0, 0, [], None
        for number in sorted(range(len(gallery)), key=lambda number: (-cosines[number], number)):
            other = labels[number]
            same = other["identity"] == one["identity"]
            if other["identity"] == -1 or (same and other["camera"] == one["camera"]):
                continue
            place += 1
            if same:
                found += 1
                precision.append(found / place)
                first = first or place
        if found:
            precisions.append(np.mean(precision))
            firsts.append(first)
        else:
            left_out += 1
    ranks = [np.mean([first <= rank for first in firsts]) for rank in (1, 5, 10)]
    return Scores(np.mean(precisions), *ranks, len(precisions), left_out)


def assert_equal(found: Scores, expected: Scores) -> None:
    np.testing.assert_allclose(list(vars(found).values()), list(vars(expected).values()), rtol=1e-5)


def a_case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries and a gallery with junk, distractors, and queries that have no right answer."""
    random = np.random.default_rng(seed)
    signs = random.choice(np.float32([-0.5, 0.5]), (37 + 203, 4))  # cosines are -1, -1/2, 0, 1/2, 1, exactly
    clouds = random.standard_normal((37 + 203, 4)).astype(np.float32)
    vectors = signs if ties else clouds / np.linalg.norm(clouds, axis=1, keepdims=True)
    asking = who(*random.integers([0, 0], [40, 3], (37, 2)))
    labels = who(*random.integers([-1, 0], [25, 3], (203, 2)))
    labels["identity"][random.random(203) < 0.2] = random.choice([-1, 0])
    return vectors[:37], vectors[37:], asking, labels


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_plain_loops(seed: int, ties: bool) -> None:
    case = a_case(seed, ties)
    expected = plainly(*case)
    assert 0 < expected.left_out < 37 and expected.rank_1 < expected.rank_10
    assert_equal(mean_average_precision(*case, block=16), expected)


def test_blocks_and_types_change_nothing() -> None:
    query, gallery, *labels = a_case(5, False)
    whole = mean_average_precision(query, gallery, *labels)
    assert_equal(mean_average_precision(query, gallery, *labels, block=1), whole)
    assert_equal(mean_average_precision(query.astype(float), gallery.astype(float), *labels, block=37), whole)


def test_without_ties_order_does_not_matter() -> None:
    query, gallery, asking, labels = a_case(6, False)
    expected = mean_average_precision(query, gallery, asking, labels)
    random = np.random.default_rng(0)
    some, others = random.permutation(len(query)), random.permutation(len(gallery))
    found = mean_average_precision(query[some], gallery[others], asking[some], labels[others])
    assert_equal(found, expected)


def test_an_example_by_hand() -> None:
    """Ranked, with what is passed over in brackets: other, (junk), right, (same camera), distractor, right, other."""
    gallery = with_cosines(0.3, 0.9, 0.8, 0.99, 0.5, 0.7, 0.1)
    labels = who((7, 2), (-1, 2), (7, 2), (9, 1), (0, 2), (7, 1), (8, 1))
    found = mean_average_precision(with_cosines(1), gallery, who((7, 1)), labels)
    assert_equal(found, Scores((1 / 2 + 2 / 4) / 2, 0, 1, 1, queries=1, left_out=0))


def test_equal_cosines_stay_in_the_order_of_the_gallery() -> None:
    """A wrong answer in front of a right one with the same cosine, and the other way round."""
    query, gallery = with_cosines(1), with_cosines(0.5, 0.5)
    behind = mean_average_precision(query, gallery, who((7, 1)), who((8, 2), (7, 2)))
    assert (behind.mean_average_precision, behind.rank_1) == (0.5, 0)
    before = mean_average_precision(query, gallery, who((7, 1)), who((7, 2), (8, 2)))
    assert (before.mean_average_precision, before.rank_1) == (1, 1)


def test_distractors_stand_in_the_way_and_answer_only_their_own() -> None:
    query, gallery, labels = with_cosines(1, 1), with_cosines(0.9, 0.8), who((0, 2), (7, 2))
    found = mean_average_precision(query, gallery, who((7, 1), (0, 1)), labels)
    assert_equal(found, Scores((1 / 2 + 1) / 2, 0.5, 1, 1, queries=2, left_out=0))


def test_junk_is_no_right_answer_even_to_junk() -> None:
    query, gallery = with_cosines(1, 1), with_cosines(0.9, 0.8)
    found = mean_average_precision(query, gallery, who((-1, 1), (7, 1)), who((-1, 2), (7, 2)))
    assert_equal(found, Scores(1, 1, 1, 1, queries=1, left_out=1))


UNIT = with_cosines(0.1, 0.2)


@pytest.mark.parametrize(
    ("query", "gallery", "asking", "labels", "message"),
    [
        (UNIT * np.float32([[1], [np.nan]]), UNIT, who((1, 1), (2, 1)), who((1, 2), (2, 2)), "query: .* image 1 is no"),
        (UNIT, UNIT * 2, who((1, 1), (2, 1)), who((1, 2), (2, 2)), "gallery: .* image 0 is no unit vector"),
        (UNIT, UNIT * np.inf, who((1, 1), (2, 1)), who((1, 2), (2, 2)), "gallery: .* image 0 is no unit vector"),
        (UNIT, np.eye(3, dtype=np.float32)[:2], who((1, 1), (2, 1)), who((1, 2), (2, 2)), "2 wide, the gallery 3"),
        (UNIT, UNIT, who((1, 1)), who((1, 2), (2, 2)), r"query: features \(2, 2\) for 1 labels"),
        (UNIT[:0], UNIT, who((1, 1))[:0], who((1, 2), (2, 2)), r"query: features \(0, 2\) for 0 labels"),
        (UNIT[0], UNIT, who((1, 1), (2, 1)), who((1, 2), (2, 2)), r"query: features \(2,\) for 2 labels"),
        (UNIT, UNIT, who((1, 1), (2, 1)), who((-1, 2), (-1, 2)), "all junk"),
        (UNIT, UNIT, who((1, 1), (2, 1)), who((1, 1), (2, 1)), "under another camera"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    query: np.ndarray, gallery: np.ndarray, asking: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        mean_average_precision(query, gallery, asking, labels)
