"""Reading: every image by its number, from anywhere, and damage named by shard and offset."""

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from cion_jax.data import example, images, tfrecord
from cion_jax.data.labels import LABELS, read_labelling, write_labelling
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.errors import UserError
from sources import Blocks


def test_random_access_gives_what_was_written(dataset: Path, blocks: Blocks) -> None:
    records = Records(dataset)
    encoded = list(blocks.encoded())
    labels = blocks.labels
    assert len(records) == len(blocks)
    for number in np.random.default_rng(0).permutation(len(blocks)):
        record = records[number]
        assert (record.image, record.source) == encoded[number]
        assert (record.height, record.width) == blocks.size
        assert tuple(getattr(record, name) for name in LABELS.names) == labels[number].item()
        assert records.index[number][list(LABELS.names)].item() == labels[number].item()


def test_sequential_reading_and_plain_framing_give_the_same(dataset: Path) -> None:
    """The index adds nothing that the shards do not say: read them as any TFRecord reader would."""
    records = Records(dataset)
    expected = list(records)
    decoded = []
    for shard in range(5):
        data = records.shard_path(shard).read_bytes()
        while data:
            payload, _ = tfrecord.unframe(data)
            decoded.append(example.decode(payload))
            data = data[len(payload) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES :]
    assert decoded == expected


def test_threads_and_processes_read_the_same(dataset: Path) -> None:
    records = Records(dataset)
    numbers = np.random.default_rng(0).integers(0, len(records), 2000).tolist()
    expected = [records[number].source for number in numbers]
    with ThreadPoolExecutor(8) as pool:
        assert [record.source for record in pool.map(Records(dataset).__getitem__, numbers)] == expected
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert [record.source for record in pool.map(records.__getitem__, numbers[:50])] == expected[:50]
    assert pickle.loads(pickle.dumps(records))[7] == records[7]


def test_pixels_are_decoded(dataset: Path, blocks: Blocks) -> None:
    assert np.abs(Records(dataset).pixels(3).astype(int) - blocks.pixels(3)).mean() < 4
    np.testing.assert_array_equal(Records(dataset).pixels(3), images.decode(Records(dataset)[3].image))


@pytest.mark.parametrize("byte", [0, 9, 40, -2], ids=["length", "length checksum", "payload", "payload checksum"])
def test_damage_names_shard_and_offset(byte: int, own_dataset: Path) -> None:
    records = Records(own_dataset)
    row = records.index[90]
    frame = int(row["length"]) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
    path = records.shard_path(2)
    data = bytearray(path.read_bytes())
    data[int(row["offset"]) + byte % frame] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        DamagedRecordError, match=f"00002-of-00005 at byte {row['offset']} .*image 90 of split train.*checksum"
    ):
        Records(own_dataset)[90]
    assert Records(own_dataset)[89] == records[89] and Records(own_dataset)[91] == records[91]


def test_a_whole_record_that_is_another_one_is_noticed(own_dataset: Path) -> None:
    """Every checksum in the shard is good, but it is not the shard that was indexed."""
    records = Records(own_dataset)
    payload = bytearray(records.payload(40))
    payload[len(payload) // 2] ^= 1
    with records.shard_path(1).open("rb+") as file:
        file.seek(int(records.index["offset"][40]))
        file.write(tfrecord.frame(bytes(payload))[0])
    with pytest.raises(DamagedRecordError, match=r"00001-of-00005 .*not the record that the index knows"):
        Records(own_dataset)[40]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "cion.json").unlink(), "no finished dataset here"),
        (lambda folder: (folder / "cion.json").write_text("{"), r"cion\.json: unreadable"),
        (lambda folder: (folder / "cion.json").write_text("[]"), r"cion\.json: unreadable"),
        (lambda folder: (folder / "cion.json").write_text('{"format": 99}'), "format 99"),
        (lambda folder: (folder / "cion-train.index.npy").unlink(), "not there; copy or write"),
        (lambda folder: (folder / "cion-train.index.npy").write_bytes(b"\x93NUMPY"), "damaged"),
        (lambda folder: np.save(folder / "cion-train.index.npy", np.zeros(200)), "not an index"),
        (lambda folder: np.save(folder / "cion-train.index.npy", Records(folder).index[:7]), "7 rows for 200 images"),
        (lambda folder: np.save(folder / "cion-train.index.npy", np.array([{}])), "damaged"),
    ],
)
def test_a_spoiled_folder_is_explained(spoil, message: str, own_dataset: Path) -> None:  # type: ignore[no-untyped-def]
    spoil(own_dataset)
    with pytest.raises(UserError, match=message):
        Records(own_dataset)


def test_an_unknown_split_is_answered_with_those_there_are(dataset: Path) -> None:
    with pytest.raises(UserError, match="no split 'gallery'; it has train, query"):
        Records(dataset, "gallery")


def test_a_missing_shard_is_named(own_dataset: Path) -> None:
    Records(own_dataset).shard_path(3).unlink()
    records = Records(own_dataset)
    assert records[0].source
    with pytest.raises(UserError, match="00003-of-00005: not there; see"):
        records[130]


def test_labels_come_back_and_only_to_their_own_data(tmp_path: Path) -> None:
    labels = np.array([0, 0, -1, 1])
    write_labelling(tmp_path / "labels.npz", labels, "abc", {"sigma": 0.3})
    np.testing.assert_array_equal(read_labelling(tmp_path / "labels.npz", "abc", None), labels)
    with pytest.raises(UserError, match="made for other data"):
        read_labelling(tmp_path / "labels.npz", "abd", None)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", b"\x80\x04N."])
def test_a_file_that_is_not_a_labelling_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"not an \.npz of plain arrays"):
        read_labelling(tmp_path / "labels.npz", "abc", None)


def test_a_labelling_that_is_not_there_is_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.npz: not there; name a labelling"):
        read_labelling(tmp_path / "nothing.npz", "abc", None)


def test_a_labelling_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labelling(tmp_path / "labels.npz", np.zeros(1 << 20), "abc", {})
    assert len(read_labelling(tmp_path / "labels.npz", "abc", None)) == 1 << 20
    monkeypatch.setattr("cion_jax.npz.MAX_BYTES", 1 << 20)
    with pytest.raises(UserError, match="would unpack to"):
        read_labelling(tmp_path / "labels.npz", "abc", None)
