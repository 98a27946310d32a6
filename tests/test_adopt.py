"""Shards that others wrote become a dataset as they are."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import Reading
from cion_jax.data import dataset, images
from cion_jax.data.pipeline import host_batches
from cion_jax.data.records import Records
from cion_jax.data.sampler import PKSampler
from cion_jax.data.tfrecord import frame
from cion_jax.errors import UserError
from tfrecords_tools.adopt import adopt
from tfrecords_tools.check import problems, without_digest

FEATURES = {"image": "image/encoded", "identity": "label", "camera": "cam", "source": "image/filename"}
OPTIONS = ["--image-feature=image/encoded", "--identity-feature=label", "--camera-feature=cam", "--workers=1"]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(values: Mapping[str, bytes | int | float]) -> bytes:
    """A tf.train.Example, written by hand: each number packed, as TensorFlow does it."""

    def feature(value: bytes | int | float) -> bytes:
        if isinstance(value, bytes):
            return field(1, field(1, value))
        if isinstance(value, float):
            return field(2, field(1, np.float32(value).tobytes()))
        return field(3, field(1, varint(value)))

    entries = (field(1, name.encode()) + field(2, feature(value)) for name, value in values.items())
    return field(1, b"".join(field(1, entry) for entry in entries))


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8 + number % 3, 6, 3), np.uint8)


def values(number: int) -> dict[str, bytes | int | float]:
    return {
        "image/encoded": images.encode_jpeg(picture(number)),
        "image/filename": f"{number:04}.jpg".encode(),
        "label": number // 4,
        "cam": number % 2,
        "score": 0.5,
    }


def plant(folder: Path, *counts: int, name: str = "people-{:05}-of-{:05}.tfrecord") -> list[Path]:
    """Shards of so many records, as others write them."""
    number = 0
    paths = []
    folder.mkdir(exist_ok=True)
    for shard, count in enumerate(counts):
        paths.append(folder / name.format(shard, len(counts)))
        paths[-1].write_bytes(b"".join(frame(example(values(number + n)))[0] for n in range(count)))
        number += count
    return paths


def test_shards_of_others_are_read_as_they_are(tmp_path: Path) -> None:
    paths = plant(tmp_path / "theirs", 5, 0, 7)
    before = [path.read_bytes() for path in paths]
    assert main(["data", "adopt", str(tmp_path / "theirs"), *OPTIONS, "--source-feature=image/filename"]) == 0
    assert [path.read_bytes() for path in paths] == before
    names = {path.name for path in paths} | {"cion.json", "cion-train.index.npy"}
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == names
    assert main(["data", "check", str(tmp_path / "theirs")]) == 0
    assert without_digest(tmp_path / "theirs") == []
    records = Records(tmp_path / "theirs")
    assert records.card.shards == (5, 0, 7)
    for number, record in enumerate(records):
        theirs = values(number)
        assert (record.image, record.source.encode()) == (theirs["image/encoded"], theirs["image/filename"])
        assert (record.identity, record.camera, record.video) == (theirs["label"], theirs["cam"], -1)
        assert records.pixels(number).shape == (record.height, record.width, 3) == picture(number).shape
    sampler = PKSampler(records.index["identity"], identities=3, instances=4)
    batch = next(iter(host_batches(records, sampler, Reading(height=16, width=8, threads=1), epochs=1)))
    assert batch["image"].shape == (12, 16, 8, 3)


def test_an_adopted_dataset_can_be_written_as_one_of_ours(tmp_path: Path) -> None:
    plant(tmp_path / "theirs", 4, 4)
    assert main(["data", "adopt", str(tmp_path / "theirs"), *OPTIONS]) == 0
    assert main(["data", "repack", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--workers=1"]) == 0
    assert list(problems(tmp_path / "ours")) == []
    theirs, ours = Records(tmp_path / "theirs"), Records(tmp_path / "ours")
    assert [record.image for record in theirs] == [record.image for record in ours]
    assert ours.card.files == () and "files" not in (tmp_path / "ours" / "cion.json").read_text().split("plan")[0]


def test_splits_are_told_by_patterns(tmp_path: Path) -> None:
    plant(tmp_path / "theirs", 3, name="train-{:05}-of-{:05}")
    plant(tmp_path / "theirs", 2, 1, name="query-{:05}-of-{:05}")
    command = ["data", "adopt", str(tmp_path / "theirs"), *OPTIONS, "--shards", "train=train-*", "query=query-*"]
    assert main(command) == 0
    assert [len(Records(tmp_path / "theirs", split)) for split in ("train", "query")] == [3, 3]
    card = (tmp_path / "theirs" / "cion.json").read_bytes()
    assert main(command) == 0 and (tmp_path / "theirs" / "cion.json").read_bytes() == card
    with pytest.raises(UserError, match=r"already is a dataset; remove cion\.json"):
        adopt(tmp_path / "theirs", {"train": "train-*"}, FEATURES, 1)


def test_a_killed_adoption_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "killed"):
        plant(tmp_path / name, *((4, 2, 3) if name == "killed" else (3, 3, 3)))
        if name == "killed":  # and shards that were read have changed before it goes on
            (tmp_path / name / "people-00002-of-00003.tfrecord").write_bytes(b"not yet there")
            with pytest.raises(UserError, match="people-00002-of-00003"):
                adopt(tmp_path / name, {"train": "people-*"}, FEATURES, 1)
            assert not dataset.is_dataset(tmp_path / name)
            plant(tmp_path / name, 3, 3, 3)
        adopt(tmp_path / name, {"train": "people-*"}, FEATURES, 1)
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()}
        for name in ("whole", "killed")
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(frame(example(values(0)))[0], mtime=0), r"compressed with GZIP, .* again without compression"),
        (zlib.compress(frame(example(values(0)))[0]), "compressed with ZLIB"),
        (b"\x89PNG and so on, more than a header", "at byte 0: the checksum of the record length does not match"),
        (frame(example(values(0)))[0][:-5], "the shard ends within a record"),
        (frame(b"\xff\xff")[0], "not a tf.train.Example"),
        (frame(example({"image": b"GIF89a", "label": 1}))[0], "no feature 'image/encoded'; it has image, label; name"),
        (frame(example(values(0) | {"image/encoded": b"GIF89a"}))[0], "neither JPEG nor PNG"),
        (frame(example(values(0) | {"label": b"anna"}))[0], "'label' is not one whole number"),
        (frame(example(values(0) | {"label": 2**40}))[0], "'label' is 1099511627776, not from -1 to"),
        (frame(example(values(0) | {"cam": 1.5}))[0], "'cam' is not one whole number"),
        (b"", "the shards of train have no record"),
    ],
)
def test_what_cannot_be_adopted_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        adopt(tmp_path, {"train": "*.tfrecord"}, FEATURES, 1)
    assert "\n" not in str(caught.value) and not dataset.is_dataset(tmp_path)


def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    plant(tmp_path / "theirs", 1)
    with pytest.raises(UserError, match=r"no file is called \*\.tfrec, there is people-00000-of-00001\.tfrecord; see"):
        adopt(tmp_path / "theirs", {"train": "*.tfrec"}, FEATURES, 1)
    with pytest.raises(UserError, match="would be in two splits"):
        adopt(tmp_path / "theirs", {"train": "p*", "query": "*.tfrecord"}, FEATURES, 1)
    with pytest.raises(UserError, match="names without a folder"):
        adopt(tmp_path, {"train": "*/p*"}, FEATURES, 1)
    with pytest.raises(UserError, match="no folder is there"):
        adopt(tmp_path / "nowhere", {"train": "*"}, FEATURES, 1)


def test_a_card_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    plant(tmp_path / "theirs", 1)
    adopt(tmp_path / "theirs", {"train": "*.tfrecord"}, FEATURES, 1)
    path = tmp_path / "theirs" / "cion.json"
    card = json.loads(path.read_text())
    del card["digest"]
    own = card["splits"]["train"]
    files = ["../secret"], ["/etc/passwd"], [], ["a", "b"], [1], "ab", None
    features = {}, [], "image", {"image": 1}, {"label": "label"}
    for changed in (*({"files": each} for each in files), *({"features": each} for each in features)):
        path.write_text(json.dumps(card | {"splits": {"train": own | changed}}))
        with pytest.raises(UserError, match=r"cion\.json: unreadable"):
            Records(tmp_path / "theirs")


def test_damage_in_adopted_shards_is_found(tmp_path: Path) -> None:
    (path,) = plant(tmp_path / "theirs", 3)
    adopt(tmp_path / "theirs", {"train": "*.tfrecord"}, FEATURES, 1)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert any("checksum" in line for line in problems(tmp_path / "theirs"))
