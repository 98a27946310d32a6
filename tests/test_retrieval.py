"""Scores of retrieval: equal to plain loops, to scikit-learn and to an example by hand, whatever the blocks."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from cion_jax.data.labels import LABELS
from cion_jax.errors import UserError
from cion_jax.evaluate.distances import Distances, cosine, euclidean
from cion_jax.evaluate.retrieval import BINS, FALSE_MATCH_RATES, QueryResults, Scores, roc_curve, scores, search


def labels_of(*rows: tuple[int, int]) -> np.ndarray:
    """Labels from pairs of identity and camera."""
    labels = np.zeros(len(rows), LABELS)
    labels["identity"], labels["camera"] = np.transpose(rows)
    return labels


def with_cosines(*cosines: float) -> np.ndarray:
    """Unit vectors that have these cosines with (1, 0)."""
    return np.array([(c, np.sqrt(1 - c * c)) for c in cosines], np.float32)


Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def score(
    query: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, block: int = 16
) -> Scores:
    return scores(search(cosine(query, gallery), query_labels, gallery_labels, block=block))


def ranked(distances: np.ndarray, one: np.void, gallery_labels: np.ndarray) -> list[int]:
    """The numbers of what a query ranks, the nearest first."""
    order = sorted(range(len(gallery_labels)), key=lambda number: (distances[number], number))
    near = [
        number
        for number in order
        if gallery_labels[number]["identity"] == one["identity"] and gallery_labels[number]["camera"] == one["camera"]
    ]
    return [number for number in order if number not in near and gallery_labels[number]["identity"] != -1]


def plainly(distances: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> Scores:
    """The protocol in plain loops."""
    precisions, firsts, penalties, left_out = [], [], [], 0
    pairs: dict[bool, list[float]] = {True: [], False: []}
    for row, one in zip(distances, query_labels, strict=True):
        precision, places = [], []
        for place, number in enumerate(ranked(row, one, gallery_labels), 1):
            right = gallery_labels[number]["identity"] == one["identity"]
            pairs[bool(right)].append(float(np.floor(row[number] * np.float32(BINS / 2))))
            if right:
                places.append(place)
                precision.append(len(places) / place)
        if places:
            precisions.append(np.mean(precision))
            firsts.append(places[0])
            penalties.append(len(places) / places[-1])
        else:
            left_out += 1
    ranks = [np.mean([first <= rank for first in firsts]) for rank in (1, 5, 10, 20)]
    rates = []
    for wanted in FALSE_MATCH_RATES:
        rate = 0.0
        for threshold in sorted(set(pairs[True])):
            if np.mean([wrong <= threshold for wrong in pairs[False]]) <= wanted:
                rate = np.mean([right <= threshold for right in pairs[True]])
        rates.append(rate)
    return Scores(np.mean(precisions), *ranks, np.mean(penalties), tuple(rates), len(precisions), left_out)


def assert_equal(computed: Scores, expected: Scores) -> None:
    np.testing.assert_allclose(*(list(each.as_dict().values()) for each in (computed, expected)), rtol=1e-5)


def a_case(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries and a gallery with junk, distractors, and queries that have no right answer."""
    random = np.random.default_rng(seed)
    signs = random.choice(np.float32([-0.5, 0.5]), (37 + 203, 4))  # cosines are -1, -1/2, 0, 1/2, 1, exactly
    clouds = random.standard_normal((37 + 203, 4)).astype(np.float32)
    vectors = signs if ties else clouds / np.linalg.norm(clouds, axis=1, keepdims=True)
    query_labels = labels_of(*random.integers([0, 0], [40, 3], (37, 2)))
    gallery_labels = labels_of(*random.integers([-1, 0], [25, 3], (203, 2)))
    gallery_labels["identity"][random.random(203) < 0.2] = random.choice([-1, 0])
    return vectors[:37], vectors[37:], query_labels, gallery_labels


def distances_of(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.asarray(cosine(query, gallery).of(0, len(query)))


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_plain_loops(seed: int, ties: bool) -> None:
    query, gallery, query_labels, gallery_labels = a_case(seed, ties)
    expected = plainly(distances_of(query, gallery), query_labels, gallery_labels)
    assert 0 < expected.left_out < 37 and expected.rank_1 < expected.rank_20
    assert_equal(score(query, gallery, query_labels, gallery_labels), expected)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn(seed: int) -> None:
    """Average precision query by query, and the curve of all pairs."""
    query, gallery, query_labels, gallery_labels = a_case(seed, False)
    results = search(cosine(query, gallery), query_labels, gallery_labels)
    distances = distances_of(query, gallery)
    near: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for number, (row, one) in enumerate(zip(distances, query_labels, strict=True)):
        places = ranked(row, one, gallery_labels)
        near.append(row[places])
        right.append(gallery_labels["identity"][places] == one["identity"])
        if right[-1].any():
            np.testing.assert_allclose(
                results.precision[number], average_precision_score(right[-1], -near[-1]), rtol=1e-6
            )
            assert results.answers[number] == right[-1].sum()
    steps = np.floor(np.concatenate(near) * np.float32(BINS / 2))
    false, true, _ = sklearn_roc_curve(np.concatenate(right), -steps, drop_intermediate=False)
    mine = np.unique(np.stack(roc_curve(results.pairs), axis=1), axis=0)
    np.testing.assert_allclose(mine, np.stack([false, true], axis=1), atol=1e-12)


@pytest.mark.parametrize("measure", [cosine, euclidean])
def test_distances_are_those_of_float64(measure: Callable[..., Distances]) -> None:
    random = np.random.default_rng(0)
    query, gallery = random.standard_normal((9, 5)), random.standard_normal((30, 5))
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery)]
    expected = {
        cosine: 1 - units[0] @ units[1].T,
        euclidean: np.linalg.norm(query[:, None] - gallery, axis=2),
    }[measure]
    distances = measure(query, gallery)
    np.testing.assert_allclose(distances.of(2, 7), expected[2:7], atol=3e-6)
    assert expected.max() <= distances.upper_bound and (distances.queries, distances.gallery) == (9, 30)


def test_euclidean_ranks_by_its_own_distance() -> None:
    """A long vector in the same direction is near by cosine, and far."""
    query, gallery = with_cosines(1), np.float32([[9, 0], [1, 0.5]])
    query_labels, gallery_labels = labels_of((7, 1)), labels_of((8, 2), (7, 2))
    assert score(query, gallery, query_labels, gallery_labels).rank_1 == 0
    assert scores(search(euclidean(query, gallery), query_labels, gallery_labels)).rank_1 == 1


def test_blocks_types_and_lengths_change_nothing() -> None:
    query, gallery, *labels = a_case(5, False)
    whole = score(query, gallery, *labels)
    assert_equal(score(query, gallery, *labels, block=1), whole)
    assert_equal(score(query.astype(float), 3 * gallery.astype(float), *labels, block=37), whole)


def test_without_ties_order_does_not_matter() -> None:
    query, gallery, query_labels, gallery_labels = a_case(6, False)
    random = np.random.default_rng(0)
    some, others = random.permutation(len(query)), random.permutation(len(gallery))
    shuffled = score(query[some], gallery[others], query_labels[some], gallery_labels[others])
    assert_equal(shuffled, score(query, gallery, query_labels, gallery_labels))


def first(results: QueryResults) -> tuple[float, int, int, int]:
    """The results of the first query."""
    return results.precision[0], results.first[0], results.last[0], results.answers[0]


def test_an_example_by_hand() -> None:
    """Ranked, with what is ignored in brackets: other, (junk), right, (same camera), distractor, right, other."""
    gallery = with_cosines(0.3, 0.9, 0.8, 0.99, 0.5, 0.7, 0.1)
    gallery_labels = labels_of((7, 2), (-1, 2), (7, 2), (9, 1), (0, 2), (7, 1), (8, 1))
    results = search(cosine(with_cosines(1), gallery), labels_of((7, 1)), gallery_labels)
    assert first(results) == ((1 / 2 + 2 / 4) / 2, 2, 4, 2)
    assert scores(results).as_dict() == pytest.approx(
        {"mAP": 0.5, "rank 1": 0, "rank 5": 1, "rank 10": 1, "rank 20": 1, "mINP": 0.5, "TPR at FPR 0.01": 0}
        | {"TPR at FPR 0.001": 0, "TPR at FPR 0.0001": 0, "queries": 1, "left out": 0}
    )


def test_equal_distances_stay_in_the_order_of_the_gallery() -> None:
    """A wrong answer in front of a right one with the same cosine, and the other way round."""
    alike = cosine(with_cosines(1), with_cosines(0.5, 0.5))
    assert first(search(alike, labels_of((7, 1)), labels_of((8, 2), (7, 2)))) == (0.5, 2, 2, 1)
    assert first(search(alike, labels_of((7, 1)), labels_of((7, 2), (8, 2)))) == (1, 1, 1, 1)


def test_distractors_stand_in_the_way_and_answer_only_their_own() -> None:
    results = search(
        cosine(with_cosines(1, 1), with_cosines(0.9, 0.8)), labels_of((0, 2), (7, 1)), labels_of((0, 1), (7, 2))
    )
    assert first(results) == (1, 1, 1, 1) and results.first[1] == 2


def test_junk_is_no_right_answer_even_to_junk() -> None:
    results = search(
        cosine(with_cosines(1, 1), with_cosines(0.9, 0.8)), labels_of((-1, 1), (7, 1)), labels_of((-1, 2), (7, 2))
    )
    assert results.answers.tolist() == [0, 1] and results.first.tolist() == [0, 1]
    assert (scores(results).queries, scores(results).left_out) == (1, 1)


def test_progress_tells_of_every_query() -> None:
    query, gallery, *labels = a_case(7, False)
    done: list[int] = []
    search(cosine(query, gallery), *labels, block=10, progress=done.append)
    assert done == [10, 10, 10, 7]


UNIT = with_cosines(0.1, 0.2)


@pytest.mark.parametrize(
    ("query", "gallery", "query_labels", "gallery_labels", "message"),
    [
        (
            UNIT * np.float32([[1], [np.nan]]),
            UNIT,
            labels_of((1, 1), (2, 1)),
            labels_of((1, 2), (2, 2)),
            "query: .* image 1 has NaN or inf",
        ),
        (
            UNIT,
            UNIT * 0,
            labels_of((1, 1), (2, 1)),
            labels_of((1, 2), (2, 2)),
            "gallery: the feature of image 0 is all 0",
        ),
        (
            UNIT,
            UNIT * np.inf,
            labels_of((1, 1), (2, 1)),
            labels_of((1, 2), (2, 2)),
            "gallery: .* image 0 has NaN or infinite",
        ),
        (
            UNIT,
            np.eye(3, dtype=np.float32)[:2],
            labels_of((1, 1), (2, 1)),
            labels_of((1, 2), (2, 2)),
            "2 wide, the gallery 3",
        ),
        (UNIT, UNIT, labels_of((1, 1)), labels_of((1, 2), (2, 2)), "query: 2 features for 1 labels"),
        (UNIT[:0], UNIT, labels_of((1, 1))[:0], labels_of((1, 2), (2, 2)), r"query: features \(0, 2\); a row"),
        (UNIT[0], UNIT, labels_of((1, 1), (2, 1)), labels_of((1, 2), (2, 2)), r"query: features \(2,\); a row"),
        (UNIT, UNIT, labels_of((1, 1), (2, 1)), labels_of((-1, 2), (-1, 2)), "all junk"),
        (UNIT, UNIT, labels_of((1, 1), (2, 1)), labels_of((1, 1), (2, 1)), "under another camera"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    query: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        score(query, gallery, query_labels, gallery_labels)
