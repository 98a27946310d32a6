"""The sampler's promises, on labels of every shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.errors import UserError

labellings = st.lists(st.integers(-1, 12), min_size=1, max_size=120).filter(lambda labels: max(labels) >= 0)
sizes = st.integers(1, 6)


def epoch_of(sampler: PKSampler, epoch: int = 0) -> np.ndarray:
    return np.stack([sampler.batch(epoch, number) for number in range(sampler.batches)])


@given(labellings, sizes, sizes)
def test_rows_hold_one_identity_and_batches_hold_different_ones(labels: list[int], p: int, k: int) -> None:
    array = np.array(labels)
    drawn = array[epoch_of(PKSampler(array, p, k))]
    assert drawn.shape[1:] == (p, k)
    assert (drawn == drawn[..., :1]).all() and (drawn >= 0).all()
    identities = len(np.unique(array[array >= 0]))
    for batch in drawn[..., 0]:
        assert np.unique(batch, return_counts=True)[1].max() <= -(-p // identities)


@given(labellings, sizes, sizes)
def test_every_image_is_met_about_once_an_epoch(labels: list[int], p: int, k: int) -> None:
    """At least once, unless its identity fills every batch already; and an epoch is hardly longer than it must be."""
    array = np.array(labels)
    sampler = PKSampler(array, p, k)
    counts = np.bincount(epoch_of(sampler).ravel(), minlength=len(array))
    _, sizes = np.unique(array[array >= 0], return_counts=True)
    groups = -(-sizes // k)
    room = -(-p // len(sizes)) * sampler.batches
    size_of = dict(zip(np.unique(array[array >= 0]), sizes, strict=True))
    for image, label in enumerate(array):
        if label < 0:
            assert counts[image] == 0
        elif -(-size_of[label] // k) <= room:
            assert counts[image] >= 1
    assert sampler.batches <= max(1, -(-groups.sum() // p))


@given(labellings, sizes, sizes)
def test_images_of_an_identity_are_met_equally_often(labels: list[int], p: int, k: int) -> None:
    array = np.array(labels)
    counts = np.bincount(epoch_of(PKSampler(array, p, k)).ravel(), minlength=len(array))
    for label in np.unique(array[array >= 0]):
        assert np.ptp(counts[array == label]) <= 1


@given(labellings, sizes, sizes, st.integers(0, 3), st.integers(0, 5))
def test_a_batch_is_a_pure_function(labels: list[int], p: int, k: int, epoch: int, seed: int) -> None:
    """Any batch, and any rows of it, come out the same alone, in another order, and from another object."""
    array = np.array(labels)
    sampler = PKSampler(array, p, k, seed)
    other = PKSampler(array, p, k, seed)
    expected = epoch_of(sampler, epoch)
    other.batch(epoch + 1, 0)
    for number in reversed(range(sampler.batches)):
        rows = [other.batch(epoch, number, slice(row, row + 1)) for row in range(p)]
        np.testing.assert_array_equal(np.concatenate(rows), expected[number])


def test_epochs_seeds_and_batch_mates_differ() -> None:
    labels = np.arange(400) // 8
    first = PKSampler(labels, 10, 4, seed=0)
    assert not np.array_equal(epoch_of(first, 0), epoch_of(first, 1))
    assert not np.array_equal(epoch_of(first, 0), epoch_of(PKSampler(labels, 10, 4, seed=1), 0))
    mates = {frozenset(batch) for epoch in range(20) for batch in labels[epoch_of(first, epoch)][..., 0].tolist()}
    assert len(mates) == 20 * first.batches


def test_images_are_shuffled_evenly_within_an_identity() -> None:
    """Each ordered pair of a group of two out of four images comes up as often as any other."""
    labels = np.arange(40) // 4
    sampler = PKSampler(labels, 10, 2)
    pairs = np.concatenate([epoch_of(sampler, epoch).reshape(-1, 2) % 4 for epoch in range(300)])
    counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    expected = len(pairs) / 12
    off_diagonal = counts[~np.eye(4, dtype=bool)]
    assert ((off_diagonal - expected) ** 2 / expected).sum() < 40  # chi-squared, 11 degrees: 1 in 30,000 beyond


def test_label_values_do_not_matter_only_who_is_together() -> None:
    labels = np.arange(60) // 6
    np.testing.assert_array_equal(epoch_of(PKSampler(labels, 4, 3)), epoch_of(PKSampler(labels * 1000 + 7, 4, 3)))


def test_a_giant_identity_stands_once_in_each_batch_with_other_images_each_epoch() -> None:
    labels = np.concatenate([np.zeros(400, int), 1 + np.arange(60) // 4])
    sampler = PKSampler(labels, 4, 4)
    drawn = [epoch_of(sampler, epoch) for epoch in range(6)]
    assert all(((labels[epoch][..., 0] == 0).sum(axis=1) <= 1).all() for epoch in drawn)
    giants = [np.unique(epoch[labels[epoch] == 0]) for epoch in drawn]
    assert len(np.unique(np.concatenate(giants))) > 2 * len(giants[0])


@pytest.mark.parametrize(
    ("labels", "p", "k", "message"),
    [
        ([-1, -1], 1, 1, "none of 2 images"),
        ([], 1, 1, "none of 0 images"),
        ([0], 0, 1, "0 identities"),
        ([0], 1, 0, "empty"),
    ],
)
def test_what_cannot_be_drawn_is_explained(labels: list[int], p: int, k: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PKSampler(np.array(labels), p, k)


windows = st.integers(1, 9)


@given(labellings, sizes, sizes, windows, st.integers(1, 30))
def test_a_windowed_shuffle_keeps_the_promises(labels: list[int], p: int, k: int, window: int, stretch: int) -> None:
    """The same images as often as without, rows of one identity, and any rows of any batch alone."""
    array = np.sort(np.array(labels))
    plain = PKSampler(array, p, k)
    sampler = PKSampler(array, p, k, shuffle=WindowedShuffle(np.arange(0, len(array), stretch), window))
    drawn = epoch_of(sampler, 1)
    assert sampler.batches == plain.batches
    assert (array[drawn] == array[drawn][..., :1]).all() and (array[drawn] >= 0).all()
    covered = [np.unique(epoch_of(each, 1)) for each in (plain, sampler)]
    groups = -(-np.unique(array[array >= 0], return_counts=True)[1] // k)
    if groups.max() <= plain.batches:
        np.testing.assert_array_equal(*covered)
    for number in range(sampler.batches):
        batches = sampler.window(number)
        assert number in batches and len(batches) <= window
        rows = [sampler.batch(1, number, slice(row, row + 1)) for row in range(p)]
        np.testing.assert_array_equal(np.concatenate(rows), drawn[number])


def test_a_windowed_shuffle_goes_through_the_chunks_one_by_one() -> None:
    """In another order each epoch, and each window keeps to a few of them."""
    labels = np.arange(4000) // 8
    sampler = PKSampler(labels, 10, 4, shuffle=WindowedShuffle(np.arange(0, 4000, 200), 10))
    chunk = [epoch_of(sampler, epoch) // 200 for epoch in range(2)]
    edges = range(0, sampler.batches, 10)
    met = [[np.unique(drawn[edge : edge + 10]) for edge in edges] for drawn in chunk]
    assert all(len(window) <= 4 for epoch in met for window in epoch)
    assert not np.array_equal(met[0][0], met[1][0])
    assert all(len(set(batch)) == 10 for epoch in range(3) for batch in labels[epoch_of(sampler, epoch)][..., 0])
