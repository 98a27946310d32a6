"""Datasets in an object store: the same images, in few long requests, and a line for what goes wrong."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from bucket import Bucket, fill
from cion_jax.cli import main
from cion_jax.config import Reading, Writing
from cion_jax.data import pipeline, records, shards
from cion_jax.data.files import StoredFile, located
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.data.sampler import PKSampler, WindowedShuffle
from cion_jax.data.shards import ChunkCache, chunk_starts
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from cion_jax.evaluate.feature_store import open_images
from sources import Blocks

URL = "gs://bucket/blocks"
READING = Reading(height=24, width=8, threads=2)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in three shards, of which each identity's stand together."""
    folder = tmp_path_factory.mktemp("data") / "grouped"
    blocks = Blocks(300)
    order = np.argsort(blocks.labels["identity"], kind="stable")
    write_dataset(folder, {"train": Sorted(blocks, order)}, Writing(images_per_shard=100, workers=1))
    return folder


class Sorted:
    def __init__(self, blocks: Blocks, order: np.ndarray):
        self._blocks = blocks
        self._order = order
        self.labels = blocks.labels[order]

    def __len__(self) -> int:
        return len(self._order)

    def part(self, start: int, stop: int) -> "Sorted":
        return Sorted(self._blocks, self._order[start:stop])

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        every = list(self._blocks.encoded())
        return (every[number] for number in self._order)

    def fingerprint(self) -> str:
        return self._blocks.fingerprint()


@pytest.fixture
def bucket(grouped: Path, monkeypatch: pytest.MonkeyPatch) -> type[Bucket]:
    """The same in an object store."""
    monkeypatch.setattr(Bucket, "broken", False)
    fill(grouped, URL)
    return Bucket


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of a dozen images."""
    for module in (shards, records):
        monkeypatch.setattr(module, "CHUNK_BYTES", 6000)
    monkeypatch.setattr(pipeline, "CHUNK_BYTES", 0)  # room for three windows and no more
    return 6000


def test_a_store_gives_what_a_folder_gives(grouped: Path, bucket: type[Bucket]) -> None:
    there, here = Records(URL), Records(grouped)
    assert str(there.shard_path(1)).startswith("gs://bucket/blocks/cion-train")
    np.testing.assert_array_equal(there.index, here.index)
    assert [there[number] for number in (0, 137, 299)] == [here[number] for number in (0, 137, 299)]
    assert len(bucket.asked) == 5  # card, index, and a range for each image
    assert list(there.in_order()) == list(here)


def test_reading_in_order_asks_seldom(bucket: type[Bucket], short: int) -> None:
    records = Records(URL)
    chunks = chunk_starts(records.index)
    bucket.asked.clear()
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(records.in_order().__getitem__, range(len(records))))
    assert images == list(Records(URL).in_order())
    assert len(chunks) < 60 and len(bucket.asked) < 3 * len(chunks)  # a thread may be overtaken by far


def test_chunks_keep_identities_and_shards_apart(grouped: Path, short: int) -> None:
    records = Records(grouped)
    labels = np.asarray(records.index["identity"])
    odd = np.where(np.arange(300) % 5 == 0, -1, labels)  # as denoising leaves people
    for starts, given in (
        (chunk_starts(records.index), None),
        (chunk_starts(records.index, labels), labels),
        (chunk_starts(records.index, odd), odd),
    ):
        chunk = np.searchsorted(starts, np.arange(300), side="right") - 1
        assert starts[0] == 0 and len(starts) > 18
        assert all(len(np.unique(records.index["shard"][chunk == n])) == 1 for n in range(len(starts)))
        if given is not None:
            pairs = {
                (label, shard, n)
                for label, shard, n in zip(given, records.index["shard"], chunk, strict=True)
                if label >= 0
            }
            assert len({(label, n) for label, _, n in pairs}) == len({(label, shard) for label, shard, _ in pairs})
    assert len(chunk_starts(records.index[:0])) == 0


def test_chunks_give_the_bytes_whatever_stays(grouped: Path, short: int) -> None:
    """With room for all of them, for none, and asked for by several threads at random."""
    records = Records(grouped)
    numbers = np.random.default_rng(0).integers(0, 300, 400).tolist()
    expected = [records.payload(number) for number in numbers]
    for room in (1, 30_000, 10**9):
        other = records.over(ChunkCache(records.shards, records.index, chunk_starts(records.index), room))
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(other.payload, numbers)) == expected


def windowed(records: Records, window: int, p: int = 4, k: int = 2) -> PKSampler:
    labels = np.asarray(records.index["identity"])
    return PKSampler(labels, p, k, 0, WindowedShuffle(chunk_starts(records.index, labels), window))


@pytest.mark.parametrize("start", [0, 11])
def test_a_windowed_shuffle_reads_each_chunk_about_once_an_epoch(bucket: type[Bucket], short: int, start: int) -> None:
    records = Records(URL)
    sampler = windowed(records, 6)
    bucket.asked.clear()
    batches = list(host_batches(records, sampler, READING, epochs=2, start=start))
    assert sampler.shuffle is not None and sampler.batches > 18
    windows = -(-sampler.batches // 6)
    asked = len(bucket.asked)
    most = 2 * (len(sampler.shuffle.starts) + windows)
    assert (start or 1.5 * len(sampler.shuffle.starts) < asked) and asked <= most
    here = list(host_batches(records, windowed(records, 6), READING, epochs=2))[start:]
    for batch, same in zip(batches, here, strict=True):
        np.testing.assert_array_equal(batch["image"], same["image"])
        np.testing.assert_array_equal(batch["number"], same["number"])


def test_hosts_of_a_windowed_shuffle_read_shares_of_the_chunks(bucket: type[Bucket], short: int) -> None:
    """Each of two hosts has its own shelves, and they stand for their own stretches of the identities."""
    records = Records(URL)
    whole = list(host_batches(records, windowed(records, 20), READING, epochs=1))
    asked = []
    parts = []
    for half in (np.arange(2), np.arange(2, 4)):
        bucket.asked.clear()
        parts.append(list(host_batches(records, windowed(records, 20), READING, epochs=1, identities=half)))
        asked.append(len(bucket.asked))
    chunks = len(chunk_starts(records.index, np.asarray(records.index["identity"])))
    assert max(asked) < 0.8 * chunks
    for batch, *shares in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch["image"], np.concatenate([share["image"] for share in shares]))


def test_damage_in_a_store_is_named(bucket: type[Bucket]) -> None:
    records = Records(URL)
    path = str(records.shard_path(0)).removeprefix("gs:/")
    row = records.index[3]
    data = bytearray(Bucket().cat_file(path))
    data[int(row["offset"]) + 30] ^= 1
    Bucket().pipe_file(path, bytes(data))
    with pytest.raises(DamagedRecordError, match=rf"gs://bucket/blocks/cion-train\S+ at byte {row['offset']} "):
        records[3]
    assert records[4]
    Bucket().pipe_file(path, bytes(data[:5000]))
    with pytest.raises(DamagedRecordError, match="the shard ends within a record"):
        records[99]
    bucket.store.pop(path)
    with pytest.raises(UserError, match="there is no such file"):
        records[3]


def test_a_store_that_fails_is_no_damage_and_may_come_back(bucket: type[Bucket], short: int) -> None:
    records = Records(URL)
    in_chunks = records.in_order()
    bucket.broken = True
    for each in (records, in_chunks):
        with pytest.raises(UserError, match=r"ConnectionError: the line is dead\); see") as raised:
            each[3]
        assert not isinstance(raised.value, DamagedRecordError) and "\n" not in str(raised.value)
    bucket.broken = False
    assert records[3] == in_chunks[3]


def test_what_is_not_there_is_named(bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"gs://bucket/nothing: no finished dataset here"):
        Records("gs://bucket/nothing")
    assert len(open_images(URL)["train"].images) == 300  # type: ignore[arg-type]
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (_ for _ in ()).throw(ImportError("no driver")))
    with pytest.raises(UserError, match="s3fs is not installed; `pip install s3fs`"):
        Records("s3://bucket/blocks")


def test_the_command_line_keeps_a_url(bucket: type[Bucket], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, why in (("gs://bucket/nothing", "no finished dataset here"), ("ftp://bucket/nothing", "not a store")):
        for given in (["--data", data], [f"--data={data}"]):
            assert main(["pretrain", "debug", *given, "--out", str(tmp_path / "run")]) == 1
            assert f"cion: {data}: {why}" in capsys.readouterr().err


def test_a_file_in_a_store_is_read_like_one_on_a_disk(grouped: Path, bucket: type[Bucket]) -> None:
    """At any place, in any order, and each block is fetched once while it is kept."""
    name = next(grouped.glob("*.tfrecord-*")).name
    stored = StoredFile(located(f"{URL}/{name}"), block=1000, kept=4)
    on_disk = (grouped / name).open("rb")
    random = np.random.default_rng(0)
    size = (grouped / name).stat().st_size
    with on_disk, io.BufferedReader(stored, 100) as reader:
        for whence, place in zip(random.integers(0, 3, 200), random.integers(0, size, 200), strict=True):
            offset = int(place) - (0, reader.tell(), size)[whence]
            assert reader.seek(offset, int(whence)) == on_disk.seek(int(place))
            assert reader.read(int(place) % 3000) == on_disk.read(int(place) % 3000)
        bucket.asked.clear()
        for place in (5000, 5900, 6500, 5200):
            reader.seek(place)
            reader.read(10)
        assert len(bucket.asked) <= 2
