"""Records as folders of images, and back."""

from pathlib import Path

import numpy as np
import pytest

from cion_jax.config import Writing
from cion_jax.data.labels import FIELDS, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from sources import Blocks
from tfrecords_tools.export import export
from tfrecords_tools.importers import IMPORTERS
from tfrecords_tools.tracklet_names import names_file, read_names, write_names

WRITING = Writing(workers=1)


def test_tracklets_go_out_and_come_back(dataset: Path, tmp_path: Path) -> None:
    assert export(dataset, tmp_path / "out", layout="tracklets", split="train", labelling=None) == 200
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    write_dataset(tmp_path / "back", IMPORTERS["folders"](tmp_path / "out"), WRITING)
    old, new = Records(dataset), Records(tmp_path / "back")
    assert [record.image for record in old] == [record.image for record in new]
    for field in ("video", "tracklet", "frame"):
        assert np.array_equal(old.index[field], new.index[field])


def test_identities_of_a_labelling(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    records = Records(dataset)
    labels = np.arange(200) // 50 - 1
    write_labelling(tmp_path / "labels.npz", labels, records.card.fingerprint, {})
    export(dataset, tmp_path / "out", layout="identities", split="train", labelling=tmp_path / "labels.npz")
    assert capsys.readouterr().err == f"{dataset}: left out 50 images of split train without an identity\n"
    assert sorted(path.name for path in (tmp_path / "out").glob("identity*")) == [f"identity{n:08d}" for n in range(3)]
    written = {path.read_bytes() for path in (tmp_path / "out" / "identity00000001").rglob("*.jpg")}
    assert written == {records[number].image for number in np.flatnonzero(labels == 1)}


@pytest.mark.parametrize("layout", ["tracklets", "identities"])
def test_the_table_brings_all_of_it_back(layout: str, tmp_path: Path) -> None:
    """People, cameras, frames and the names of the source, which folders have no place for."""
    names = [(tracklet, tracklet // 2, f"film {tracklet // 2}.mp4", f"#{tracklet % 2}") for tracklet in range(12)]
    write_dataset(tmp_path / "data", {"train": Blocks(60)}, WRITING, {names_file("train"): write_names(names)})
    export(tmp_path / "data", tmp_path / "out", layout=layout, split="train", labelling=None)  # type: ignore[arg-type]
    splits = IMPORTERS["manifest"](tmp_path / "out" / "images.jsonl")
    write_dataset(tmp_path / "back", splits, WRITING, {names_file("train"): write_names(splits["train"].names)})
    old, new = Records(tmp_path / "data"), Records(tmp_path / "back")
    kept = [record for record in old if layout == "tracklets" or record.identity >= 0]
    before, after = ({(each.image, *(getattr(each, name) for name in FIELDS)) for each in side} for side in (kept, new))
    assert before == after and len(after) > 50
    assert read_names(tmp_path / "back", "train") == names


def test_market_goes_out_and_comes_back(tmp_path: Path) -> None:
    """Each image with its person, camera and frame; videos are sequences of their cameras."""
    sizes = {"train": 60, "query": 20, "gallery": 40}
    write_dataset(tmp_path / "data", {split: Blocks(size, seed=size) for split, size in sizes.items()}, WRITING)
    export(tmp_path / "data", tmp_path / "out", layout="market1501", split="train", labelling=None)
    splits = IMPORTERS["market1501"](tmp_path / "out")
    for split in sizes:
        records = Records(tmp_path / "data", split)
        old = {(record.image, *(getattr(record, name) for name in FIELDS[2:])) for record in records}
        pairs = zip(splits[split].encoded(), splits[split].labels.tolist(), strict=True)
        assert old == {(image, *labels[2:]) for (image, _), labels in pairs}
        assert len(np.unique(splits[split].labels["video"])) == len(np.unique(records.index["video"]))


def test_a_repeated_export_finds_its_work_done(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A command that was killed after its last write is repeated, too."""
    options = {"layout": "tracklets", "split": "train", "labelling": None}
    before = export(dataset, tmp_path / "out", **options)  # type: ignore[arg-type]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert export(dataset, tmp_path / "out", **options) == before == 200  # type: ignore[arg-type]
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert "was finished before" in capsys.readouterr().err
    with pytest.raises(UserError, match="is there already"):
        export(dataset, tmp_path / "out", layout="identities", split="train", labelling=None)


def test_refusals(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        export(dataset, tmp_path, layout="tracklets", split="train", labelling=None)
    with pytest.raises(UserError, match="no split 'nothing'"):
        export(dataset, tmp_path / "out", layout="tracklets", split="nothing", labelling=None)
    labels = np.full(200, 12345)
    write_labelling(tmp_path / "labels.npz", labels, Records(dataset).card.fingerprint, {})
    with pytest.raises(UserError, match="have no place for identity 12345"):
        export(dataset, tmp_path / "out", layout="market1501", split="train", labelling=tmp_path / "labels.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npz"]
