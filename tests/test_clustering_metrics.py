"""Agreement of labels with the truth: equal to scikit-learn and to examples by hand, and blind to names and order."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix

from cion_jax.errors import UserError
from cion_jax.evaluate.clustering_metrics import Agreement, agreement

#: Few labels among few images, so that ties, single labels and images of nobody come often.
LABELLINGS = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=30)


def labellings(images: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels, truth = np.array(images).T
    return labels, truth


def assert_equal(computed: Agreement, expected: Agreement) -> None:
    np.testing.assert_allclose(computed, expected, rtol=1e-12, atol=1e-12)


def one_by_one(labels: np.ndarray) -> np.ndarray:
    """With a label of its own for each image of nobody."""
    return np.array([1000 + row if label < 0 else label for row, label in enumerate(labels)])


def by_scikit_learn(labels: np.ndarray, truth: np.ndarray) -> Agreement:
    labels, truth = one_by_one(labels), one_by_one(truth)
    (_, only_labels), (only_truth, both) = pair_confusion_matrix(truth, labels).tolist()
    precision, recall = both / max(both + only_labels, 1), both / max(both + only_truth, 1)
    f1 = 2 * precision * recall / (precision + recall) if both else 0
    ari, nmi = adjusted_rand_score(truth, labels), normalized_mutual_info_score(truth, labels)
    return Agreement(precision, recall, f1, nmi, ari)


@given(LABELLINGS)
def test_equal_to_scikit_learn(images: list[tuple[int, int]]) -> None:
    labels, truth = labellings(images)
    assert_equal(agreement(labels, truth), by_scikit_learn(labels, truth))


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn_on_many_labels(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(-1, 300, 5000)
    labels = np.where(random.random(5000) < 0.7, truth // (1 + seed % 2), random.integers(-1, 400, 5000))
    scores = agreement(labels, truth)
    assert 0.1 < scores.precision < 0.9 and 0.1 < scores.recall < 0.9
    assert_equal(scores, by_scikit_learn(labels, truth))


@given(LABELLINGS)
def test_pairs_equal_to_a_plain_loop(images: list[tuple[int, int]]) -> None:
    """A pair is two images of one person; nobody is no person."""
    pairs = list(combinations(images, 2))
    predicted = {row for row, (one, other) in enumerate(pairs) if one[0] == other[0] >= 0}
    true = {row for row, (one, other) in enumerate(pairs) if one[1] == other[1] >= 0}
    precision = len(predicted & true) / len(predicted) if predicted else 0
    recall = len(predicted & true) / len(true) if true else 0
    assert agreement(*labellings(images))[:2] == (precision, recall)


@given(LABELLINGS, st.randoms(use_true_random=False), st.permutations(range(5)))
def test_neither_names_nor_order_matter(images: list[tuple[int, int]], random, names: list[int]) -> None:
    labels, truth = labellings(images)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    renamed = np.where(labels < 0, labels, 10**15 * np.array(names)[labels])
    assert agreement(renamed[order], truth[order].astype(np.int32)) == agreement(labels, truth)


@given(LABELLINGS)
def test_labels_and_truth_change_places(images: list[tuple[int, int]]) -> None:
    labels, truth = labellings(images)
    one, other = agreement(labels, truth), agreement(truth, labels)
    assert (one.precision, one.recall, one.f1, one.ari) == (other.recall, other.precision, other.f1, other.ari)
    assert one.nmi == pytest.approx(other.nmi, abs=1e-15)


def test_an_example_by_hand() -> None:
    """Truth aaabb, labels 11222: 4 pairs each, of which 2 are common (a a, b b), and 10 in all."""
    truth, labels = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 2, 2, 2])
    entropy = -(2 / 5 * math.log(2 / 5) + 3 / 5 * math.log(3 / 5))
    combined = -(4 / 5 * math.log(2 / 5) + 1 / 5 * math.log(1 / 5))
    expected = Agreement(1 / 2, 1 / 2, 1 / 2, 2 - combined / entropy, (2 - 16 / 10) / (4 - 16 / 10))
    assert_equal(agreement(labels, truth), expected)


SAME, ALONE, NOBODY = np.zeros(6, int), np.arange(6), np.full(6, -1)


@pytest.mark.parametrize(
    ("labels", "truth", "expected"),
    [
        (SAME, SAME, (1, 1, 1, 1, 1)),
        (ALONE, ALONE, (0, 0, 0, 1, 1)),
        (NOBODY, ALONE, (0, 0, 0, 1, 1)),
        (NOBODY, NOBODY, (0, 0, 0, 1, 1)),
        (SAME, ALONE, (0, 0, 0, 0, 0)),
        (NOBODY, SAME, (0, 0, 0, 0, 0)),
        (SAME, ALONE // 3, (6 / 15, 1, 12 / 21, 0, 0)),
        (SAME[:1], SAME[:1], (0, 0, 0, 1, 1)),
    ],
)
def test_the_ends_are_exact(labels: np.ndarray, truth: np.ndarray, expected: tuple[float, ...]) -> None:
    assert agreement(labels, truth) == expected


@given(LABELLINGS)
def test_a_labelling_agrees_with_itself(images: list[tuple[int, int]]) -> None:
    labels, _ = labellings(images)
    scores = agreement(labels, labels)
    assert (scores.nmi, scores.ari) == (1, 1)
    assert scores[:3] == ((1, 1, 1) if scores.recall else (0, 0, 0))


def test_images_of_nobody_are_alone_on_either_side() -> None:
    """Two of them are no pair, though their labels are equal."""
    nobody, person = np.array([0, 0, -1, -1]), np.array([0, 0, 1, 1])
    assert agreement(nobody, person)[:2] == (1, 1 / 2)
    assert agreement(person, nobody)[:2] == (1 / 2, 1)


def test_many_images_stay_exact() -> None:
    """Pairs of 300,000 images are beyond what float32 and int32 hold, and their products beyond int64."""
    truth = np.arange(300_000) // 100_000
    labels = truth.copy()
    labels[0] = 1
    common, size = 100_000 * 99_999 // 2, 300_000
    both, predicted, true = 3 * common - 99_999, 3 * common - 99_999 + 100_000, 3 * common
    chance = predicted * true / (size * (size - 1) / 2)
    ari = (both - chance) / ((predicted + true) / 2 - chance)
    assert agreement(labels, truth)[:2] == (both / predicted, both / true)
    assert agreement(labels, truth).ari == pytest.approx(ari, rel=1e-14) and ari < 1


@pytest.mark.parametrize(
    ("labels", "truth", "message"),
    [
        (SAME[:0], SAME[:0], "0 labels for 0 true identities"),
        (SAME[:2], SAME, "2 labels for 6 true identities"),
        (SAME.astype(float), SAME, r"labels: float64 \(6,\); give a whole number"),
        (SAME, SAME[:, None], r"truth: int64 \(6, 1\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(labels: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agreement(labels, truth)
