"""Statistics, contact sheets and repacking."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cion_jax.config import Writing
from cion_jax.data import images
from cion_jax.data.labels import read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.errors import UserError
from sources import Blocks
from tfrecords_tools.check import problems
from tfrecords_tools.importers import IMPORTERS
from tfrecords_tools.repack import new_order, repack
from tfrecords_tools.sheet import caption_of, rows_of, sheet_of
from tfrecords_tools.stats import draw, statistics

WRITING = Writing(images_per_shard=64, workers=1)


def test_statistics_count_what_is_there(dataset: Path, blocks: Blocks) -> None:
    splits = statistics(dataset)
    assert set(splits) == {"train", "query"}
    train = splits["train"]
    counts = ("images", "shards", "videos", "tracklets", "cameras", "identities", "images without identity")
    assert [train[name] for name in counts] == [200, 5, 20, 40, 3, 14, 28]
    assert train["images per tracklet"] == {"min": 5, "median": 5, "max": 5}
    assert train["height"] == {"min": 32, "median": 32, "max": 32}
    assert train["bytes"] == sum(path.stat().st_size for path in dataset.glob("cion-train.tfrecord*"))


def test_odd_shapes_are_counted(tmp_path: Path) -> None:
    shapes = [(20, 10), (10, 10), (9, 10), (50, 10), (51, 10), (10, 40)]  # the third, and the last two
    table = []
    for number, shape in enumerate(shapes):
        (tmp_path / f"{number}.jpg").write_bytes(images.encode_jpeg(np.zeros((*shape, 3), np.uint8)))
        table.append(json.dumps({"path": f"{number}.jpg", "video": 1, "tracklet": 1, "frame": number}))
    (tmp_path / "list.jsonl").write_text("\n".join(table))
    write_dataset(tmp_path / "out", IMPORTERS["manifest"](tmp_path / "list.jsonl"), WRITING)
    assert statistics(tmp_path / "out")["train"]["odd shapes"] == 3


def test_the_picture_of_statistics_is_a_picture(dataset: Path, tmp_path: Path) -> None:
    draw(dataset, tmp_path / "stats.png")
    with Image.open(tmp_path / "stats.png") as picture:
        assert np.asarray(picture).std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["stats.png"]


def test_a_sheet_shows_the_chosen_images(dataset: Path) -> None:
    records = Records(dataset)
    rows = rows_of(np.asarray(records.index["tracklet"]), (7, 3), rows=9, columns=3)
    assert {label: numbers.tolist() for label, numbers in rows.items()} == {7: [35, 37, 39], 3: [15, 17, 19]}
    sheet = np.asarray(sheet_of(records, rows, height=32, width=16)).astype(int)
    for numbers in rows.values():
        for number in numbers:
            wanted = records.pixels(number)
            windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (32, 16))
            assert (windows == wanted[..., 0]).all(axis=(2, 3)).any(), f"image {number} is not on the sheet"


def test_captions_say_what_is_known(dataset: Path) -> None:
    row = Records(dataset).index[37].copy()
    assert caption_of(row) == "c0 f37"
    row["camera"] = -1
    assert caption_of(row) == "f37"


def test_a_sheet_of_nothing_is_explained(dataset: Path) -> None:
    with pytest.raises(UserError, match="no image is labelled 999; labels run from 0 to 13"):
        rows_of(np.asarray(Records(dataset).index["identity"]), (999,), 3, 3)
    with pytest.raises(UserError, match="no image of this split"):
        rows_of(np.full(5, -1), (), 3, 3)


@pytest.mark.parametrize("order", ["same", "shuffled", "grouped"])
def test_repacking_keeps_every_record(order: str, dataset: Path, tmp_path: Path) -> None:
    repack(dataset, tmp_path / "out", order=order, seed=0, size=None, labelling=None, writing=WRITING)  # type: ignore[arg-type]
    old, new = list(Records(dataset)), list(Records(tmp_path / "out"))
    assert (old == new) == (order == "same")
    assert sorted(old, key=lambda record: record.source) == sorted(new, key=lambda record: record.source)
    assert Records(tmp_path / "out").card.shards == (64, 64, 64, 8)
    assert list(problems(tmp_path / "out")) == []
    if order == "same":
        assert Records(tmp_path / "out").card.fingerprint == Records(dataset).card.fingerprint


def test_grouped_identities_stand_in_one_piece_and_unknown_ones_last() -> None:
    labels = np.array([3, -1, 1, 3, 1, 8, -1, 3])
    ordered = labels[new_order(labels, "grouped", seed=1)]
    assert ordered[-2:].tolist() == [-1, -1]
    changes = np.count_nonzero(np.diff(ordered[:-2]))
    assert changes == 2
    orders = {tuple(labels[new_order(labels, "grouped", seed)]) for seed in range(20)}
    assert len(orders) > 1


def test_labels_are_carried_over(dataset: Path, tmp_path: Path) -> None:
    old = Records(dataset)
    labels = np.asarray(old.index["tracklet"]).astype(np.int64) % 7
    write_labelling(tmp_path / "labels.npz", labels, old.card.fingerprint, {})
    repack(
        dataset,
        tmp_path / "out",
        order="grouped",
        seed=0,
        size=None,
        labelling=tmp_path / "labels.npz",
        writing=WRITING,
    )
    new = Records(tmp_path / "out")
    carried = read_labelling(tmp_path / "out" / "labels.npz", new.card.fingerprint, len(new))
    by_source = {record.source: label for record, label in zip(old, labels, strict=True)}
    assert [by_source[record.source] for record in new] == carried.tolist()
    assert np.count_nonzero(np.diff(carried)) == 6


def test_resizing(dataset: Path, tmp_path: Path) -> None:
    repack(dataset, tmp_path / "out", order="same", seed=0, size=(16, 8), labelling=None, writing=WRITING)
    old, new = Records(dataset), Records(tmp_path / "out")
    assert (new[5].height, new[5].width) == (16, 8)
    assert np.abs(new.pixels(5).astype(int) - images.resize(old.pixels(5), 16, 8)).mean() < 4
    assert list(problems(tmp_path / "out")) == []
