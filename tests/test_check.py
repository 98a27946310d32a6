"""`problems` finds each kind of harm, by shard and offset, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from cion_jax.config import Writing
from cion_jax.data import dataset as layout
from cion_jax.data.labels import write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from sources import Blocks
from tfrecords_tools.check import problems


def test_an_intact_set_has_none(dataset: Path) -> None:
    assert list(problems(dataset)) == []


def test_one_flipped_byte(own_dataset: Path) -> None:
    records = Records(own_dataset)
    path = records.shard_path(1)
    offset = int(records.index["offset"][45])
    data = bytearray(path.read_bytes())
    data[offset + 60] ^= 4
    path.write_bytes(data)
    (problem,) = problems(own_dataset)
    assert problem.startswith(f"{path} at byte {offset} (image 45 of split train): ") and "checksum" in problem


def test_a_truncated_shard(own_dataset: Path) -> None:
    records = Records(own_dataset)
    path = records.shard_path(4)
    offset = int(records.index["offset"][198])
    path.write_bytes(path.read_bytes()[: offset + 30])
    lines = list(problems(own_dataset))
    assert [f"at byte {offset}" in lines[0], "ends within a record" in lines[0]] == [True, True]
    assert "image 199 of split train): the shard ends" in lines[1]
    assert len(lines) == 3 and f"{path} at byte {offset + 30}: the shard has {offset + 30} bytes" in lines[2]


def test_bytes_behind_the_last_record(own_dataset: Path) -> None:
    path = Records(own_dataset).shard_path(0)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"more")
    (problem,) = problems(own_dataset)
    assert problem == f"{path} at byte {size}: the shard has {size + 4} bytes where the index describes {size}"


def test_a_missing_shard(own_dataset: Path) -> None:
    path = Records(own_dataset).shard_path(2)
    path.unlink()
    (problem,) = problems(own_dataset)
    assert problem == f"{path}: not there; its 40 images are lost"


def test_a_record_whose_image_does_not_decode(own_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written with good checksums around a bad image, as by a writer that never looked."""
    monkeypatch.setattr("cion_jax.data.images.decode", lambda data: np.empty((32, 16, 3)))
    write_dataset(own_dataset / "new", {"train": Blocks(30, damaged=(17,))}, Writing(20, workers=1))
    monkeypatch.undo()
    (problem,) = problems(own_dataset / "new")
    offset = Records(own_dataset / "new").index["offset"][17]
    assert f"00000-of-00002 at byte {offset} (image 17 of split train): does not decode" in problem


def with_index(folder: Path, **changes: tuple[int, int]) -> None:
    """Change one row of the train index by hand, and make the card agree, so that only the tested rule is broken."""
    path = layout.index_path(folder, "train")
    index = np.load(path)
    for name, (row, value) in changes.items():
        index[name][row] = value
    np.save(path, index)
    splits, plan = layout.read_card(folder)
    fields = splits["train"].__dict__ | {"fingerprint": layout.fingerprint(index)}
    layout.write_card(folder / layout.CARD, splits | {"train": layout.Split(**fields)}, plan, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": (50, 7)}, "the record before it ends at byte"),
        ({"video": (50, 99)}, "tracklet 10 has several videos"),
        ({"camera": (50, 99)}, "tracklet 10 has several cameras"),
        ({"frame": (50, 51)}, "tracklet 10 is twice in frame 51"),
        ({"identity": (50, -2)}, "identity -2 is below -1"),
        ({"identity": (50, 77)}, "disagrees with index or image about identity"),
        ({"shard": (50, 4)}, "images are not in the shards"),
    ],
)
def test_an_index_that_does_not_fit(changes: dict, message: str, own_dataset: Path) -> None:
    with_index(own_dataset, **changes)
    assert any(message in problem for problem in problems(own_dataset))


def test_an_index_of_other_content(own_dataset: Path) -> None:
    path = layout.index_path(own_dataset, "train")
    index = np.load(path)
    index["identity"][0] += 1
    np.save(path, index)
    assert any("fingerprints differ" in problem for problem in problems(own_dataset))


@pytest.mark.parametrize(
    ("count", "made_for", "message"), [(200, "other", "made for other data"), (3, None, "labels for 200")]
)
def test_a_labelling_that_does_not_fit(count: int, made_for: str | None, message: str, own_dataset: Path) -> None:
    fingerprint = made_for or Records(own_dataset).card.fingerprint
    write_labelling(own_dataset / "labels.npz", np.zeros(count, int), fingerprint, {})
    (problem,) = problems(own_dataset)
    assert message in problem
