"""Batches from records: the right pixels in the right order, on any number of hosts, from any position."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cion_jax.config import Bnneck, Reading
from cion_jax.data import images
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import ChunkCache, chunk_starts
from cion_jax.errors import UserError
from cion_jax.recipes import published
from cion_jax.run.loader import device_batches
from cion_jax.run.sharding import make_mesh

READING = Reading(height=24, width=8, threads=2)


@pytest.fixture(scope="module")
def records(dataset: Path) -> Records:
    return Records(dataset)


@pytest.fixture(scope="module")
def labels(records: Records) -> np.ndarray:
    return np.asarray(records.index["identity"])


def test_batches_follow_the_sampler_and_hold_resized_pixels(records: Records, labels: np.ndarray) -> None:
    sampler = PKSampler(labels, 4, 3)
    batches = list(host_batches(records, sampler, READING, epochs=2))
    expected = [sampler.batch(epoch, number) for epoch in range(2) for number in range(sampler.batches)]
    assert len(batches) == len(expected)
    for batch, numbers in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch["number"], numbers.ravel())
        assert batch["image"].shape == (12, 24, 8, 3) and batch["image"].dtype == np.uint8
        assert batch["damaged"] == 0
    for image, number in zip(batches[0]["image"], batches[0]["number"], strict=True):
        np.testing.assert_array_equal(image, images.resize(records.pixels(number), 24, 8))


def test_a_training_resizes_as_its_settings_say(records: Records, labels: np.ndarray) -> None:
    sampler = PKSampler(labels, 4, 3)
    for kernel in ("bilinear", "bicubic"):
        settings = Bnneck(batch=12, instances=3, image_size=(24, 8), resize=kernel)
        batch = next(device_batches(settings, make_mesh(1, 1), records, sampler, labels, range(1)))
        expected = [images.resize(records.pixels(number), 24, 8, kernel) for number in sampler.batch(0, 0).ravel()]
        np.testing.assert_array_equal(batch.images[0], expected)
    assert published(Bnneck(), "resnet50", "market1501").resize == "bicubic"


def test_hosts_share_the_batch_of_one(records: Records, labels: np.ndarray) -> None:
    sampler = PKSampler(labels, 4, 3)
    whole = list(host_batches(records, sampler, READING, epochs=1))
    halves = np.array([2, 0]), np.array([1, 3])
    shares = [list(host_batches(records, sampler, READING, epochs=1, identities=half)) for half in halves]
    for batch, *parts in zip(whole, *shares, strict=True):
        for key in ("image", "number"):
            groups = batch[key].reshape(4, 3, *batch[key].shape[1:])[np.concatenate(halves)]
            joined = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(joined, groups.reshape(batch[key].shape))


@pytest.mark.parametrize("drawn", [0, 1, 7, 30])
def test_position_is_saved_and_restored_exactly(drawn: int, records: Records, labels: np.ndarray) -> None:
    sampler = PKSampler(labels, 4, 3)
    straight = iter(host_batches(records, sampler, READING, epochs=4))
    for _ in range(drawn):
        next(straight)
    state = straight.get_state()
    expected = [next(straight)["number"] for _ in range(5)]
    resumed = iter(host_batches(records, sampler, replace(READING, threads=1), epochs=4))
    resumed.set_state(state)
    np.testing.assert_array_equal([next(resumed)["number"] for _ in range(5)], expected)
    started = iter(host_batches(records, sampler, READING, epochs=4, start=drawn))
    np.testing.assert_array_equal([next(started)["number"] for _ in range(5)], expected)


@pytest.mark.parametrize("window", [0, 4])
def test_stretches_of_batches_run_on_through_the_passes(window: int, records: Records, labels: np.ndarray) -> None:
    shuffle = WindowedShuffle(chunk_starts(records.index, labels), window) if window else None
    sampler = PKSampler(labels, 4, 3, shuffle=shuffle)
    length = 7
    last = 2 * sampler.batches
    assert sampler.batches == 17  # and so stretches end within passes, and within windows
    stretches = []
    for start in range(0, last, length):
        stretch = host_batches(records, sampler, READING, start=start, stop=min(start + length, last))
        stretches.append([batch["number"] for batch in stretch])
    assert [len(stretch) for stretch in stretches] == [length] * (last // length) + [last % length]
    drawn = np.concatenate(stretches)
    straight = host_batches(records, sampler, READING, epochs=2)
    np.testing.assert_array_equal(drawn, [batch["number"] for batch in straight])
    for batches in np.split(drawn, 2):
        assert set(batches.ravel().tolist()) == set(np.flatnonzero(labels >= 0).tolist())


def test_a_windowed_shuffle_fetches_each_batch_once_and_none_behind_its_end(
    records: Records, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[np.ndarray] = []
    monkeypatch.setattr(ChunkCache, "fetch", lambda cache, numbers: fetched.append(numbers))
    sampler = PKSampler(labels, 4, 3, 0, WindowedShuffle(chunk_starts(records.index, labels), 4))
    stop = sampler.batches + 2  # within a window of the second pass
    batches = host_batches(records, sampler, replace(READING, threads=1), stop=stop)
    np.testing.assert_array_equal(fetched, [batch["number"] for batch in batches])


def spoil(records: Records, *numbers: int) -> Records:
    for number in numbers:
        row = records.index[number]
        with records.shard_path(row["shard"]).open("rb+") as file:
            file.seek(int(row["offset"]) + 30)
            file.write(b"\0\0\0")
    return Records(records.folder)


def test_damage_stops_or_is_replaced_within_the_group_and_counted(own_dataset: Path, labels: np.ndarray) -> None:
    records = spoil(Records(own_dataset), 11, 12)
    sampler = PKSampler(labels, 3, 15)
    with pytest.raises(DamagedRecordError, match=r"image 1[12] of split train"):
        list(host_batches(records, sampler, READING, epochs=1))
    batches = list(host_batches(records, sampler, replace(READING, skip_damaged=True), epochs=1))
    for number, batch in enumerate(batches):
        wanted = sampler.batch(0, number).ravel()
        hit = np.isin(wanted, [11, 12])
        assert batch["damaged"] == hit.sum()
        assert not np.isin(batch["number"], [11, 12]).any()
        np.testing.assert_array_equal(batch["number"][~hit], wanted[~hit])
        np.testing.assert_array_equal(labels[batch["number"]], labels[wanted])
        for image, used in zip(batch["image"], batch["number"], strict=True):
            np.testing.assert_array_equal(image, images.resize(records.pixels(used), 24, 8))


def test_a_group_without_a_whole_image_cannot_be_passed_over(own_dataset: Path) -> None:
    records = spoil(Records(own_dataset), 0, 1)
    labels = np.full(len(records), -1)
    labels[:2] = 0
    reading = replace(READING, skip_damaged=True)
    with pytest.raises(DamagedRecordError, match="no other image of its group"):
        list(host_batches(records, PKSampler(labels, 1, 2), reading, epochs=1))


def test_labels_of_other_data_are_refused(records: Records) -> None:
    with pytest.raises(UserError, match="7 labels for 200 images"):
        host_batches(records, PKSampler(np.zeros(7, int), 4, 3), READING, epochs=1)
