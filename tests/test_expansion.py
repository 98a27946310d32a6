"""Query expansion: equal to a loop, and what it does to a query."""

import numpy as np
import pytest

from cion_jax.errors import UserError
from cion_jax.evaluate.expansion import expanded


def units(seed: int, images: int) -> np.ndarray:
    """Unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((images, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("block", [7, 256])
def test_equal_to_a_loop(count: int, block: int) -> None:
    query, gallery = units(0, 20), units(1, 50)
    moved = expanded(query, gallery, count, block=block)
    assert moved.dtype == np.float32
    for one, feature in zip(moved, query, strict=True):
        nearest = sorted(gallery, key=lambda other, feature=feature: -float(feature @ other))[:count]
        total = feature + sum(nearest)
        np.testing.assert_allclose(one, total / np.linalg.norm(total), atol=1e-6)


def test_of_equals_the_first_help() -> None:
    gallery = np.float32([[0.6, -0.8], [0.6, 0.8], [0, 1], [0.6, -0.8]])
    np.testing.assert_allclose(expanded(np.float32([[1, 0]]), gallery, 2), [[1, 0]], atol=1e-7)
    first_alone = np.float32([[1.6, -0.8]]) / np.sqrt(3.2)
    np.testing.assert_allclose(expanded(np.float32([[1, 0]]), gallery, 1), first_alone, atol=1e-7)


def test_without_help_queries_stay_as_they_are() -> None:
    query = units(0, 20)
    same = expanded(query, units(1, 50), 0)
    np.testing.assert_array_equal(same, query)
    assert not np.shares_memory(same, query)


def test_what_is_given_is_not_changed() -> None:
    query, gallery = units(0, 20), units(1, 50)
    expanded(query, gallery, 3)
    np.testing.assert_array_equal(query, units(0, 20))
    np.testing.assert_array_equal(gallery, units(1, 50))


@pytest.mark.parametrize(
    ("query", "gallery", "count", "message"),
    [
        (units(0, 4), units(1, 5), -1, "expansion by -1: must be from 0 to 5"),
        (units(0, 4), units(1, 5), 6, "expansion by 6: must be from 0 to 5"),
        (units(0, 4), units(1, 5)[:, :3], 2, "queries are 6 wide, the gallery 3"),
        (units(0, 4) * 2, units(1, 5), 2, "query: the feature of image 0 is not a unit vector"),
        (units(0, 4), units(1, 5) * np.float32([[1], [1], [0], [1], [1]]), 2, "gallery: the feature of image 2 is not"),
        (units(0, 4), units(1, 5) * np.nan, 2, "gallery: the feature of image 0 has NaN or infinite"),
    ],
)
def test_what_makes_no_sense_is_refused(query: np.ndarray, gallery: np.ndarray, count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expanded(query, gallery, count)
