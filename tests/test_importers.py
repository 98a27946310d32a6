"""Every layout as a tiny tree: exact labels and order, and what all sources promise."""

import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.data.source import Source
from layouts import GT, as_jsonl, plant, plant_sequence, refusal, rows, write_annotations
from tfrecords_tools import files
from tfrecords_tools.importers import IMPORTERS, listing
from tfrecords_tools.importers.numbering import dense_ranks, natural_ranks

# Layouts


def test_folders(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plant(tmp_path, "v10/t1/c9_0007.JPG", "v10/t1/c9_0003.jpeg", "v2/t1/10.png", "v2/t1/9.png", "v2/t10/1.jpg")
    plant(tmp_path, "v2/t2/b.jpg", "v2/t2/x12.jpg", "v2/t2/x2.jpg", "v2/t3/20240101123000.jpg", "v2/t3/8.jpg")
    plant(
        tmp_path, ".hidden/t/1.jpg", "v2/.t/1.jpg", "v2/t1/.1.jpg", "v2/t1/notes.txt", "v2/cover.jpg", "v2/t1/x/1.jpg"
    )
    splits = IMPORTERS["folders"](tmp_path)
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"{tmp_path}: left out 1 files that are no images",
        f"{tmp_path}: left out 1 folders among the images",
        f"{tmp_path}: left out 1 images that stand higher than expected",
        f"{tmp_path}: left out 3 hidden files and folders",
    ]
    assert getattr(splits["train"], "names")[2:] == [(2, 0, "v2", "t3"), (3, 0, "v2", "t10"), (4, 1, "v10", "t1")]  # noqa: B009
    assert list(splits) == ["train"]
    assert rows(splits["train"]) == [
        ("v2/t1/9.png", 0, 0, 9, -1, -1),
        ("v2/t1/10.png", 0, 0, 10, -1, -1),
        ("v2/t2/b.jpg", 0, 1, 0, -1, -1),
        ("v2/t2/x2.jpg", 0, 1, 1, -1, -1),
        ("v2/t2/x12.jpg", 0, 1, 2, -1, -1),
        ("v2/t3/8.jpg", 0, 2, 0, -1, -1),
        ("v2/t3/20240101123000.jpg", 0, 2, 1, -1, -1),  # too long for a frame number, so the tracklet is counted
        ("v2/t10/1.jpg", 0, 3, 1, -1, -1),
        ("v10/t1/c9_0003.jpeg", 1, 4, 3, -1, -1),
        ("v10/t1/c9_0007.JPG", 1, 4, 7, -1, -1),
    ]


def test_lupnl(tmp_path: Path) -> None:
    root = "DE/Bonn/a/"
    plant(tmp_path, root + "2_00005_1.jpg", root + "2_00003_1.jpg", root + "2_00003_0.jpg", root + "10_00001_0.jpg")
    plant(tmp_path, "AR/Salta/a/2_00003_1.jpg", root + "notes.txt")
    assert rows(IMPORTERS["lupnl"](tmp_path)["train"]) == [
        ("AR/Salta/a/2_00003_1.jpg", 0, 0, 3, -1, -1),
        (root + "2_00003_0.jpg", 1, 1, 3, -1, -1),
        (root + "2_00003_1.jpg", 1, 2, 3, -1, -1),
        (root + "2_00005_1.jpg", 1, 2, 5, -1, -1),
        (root + "10_00001_0.jpg", 1, 3, 1, -1, -1),
    ]


def test_cional(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plant(tmp_path, "sec1/a/f_12.jpg", "sec1/a/f_9.jpg", "sec1/b/x.jpg", "sec1/b/unlisted.jpg")
    write_annotations(tmp_path, ("sec1/b/x.jpg", "0070"), ("./sec1/a/f_12.jpg", 70), ("sec1/a/f_9.jpg", 8))
    assert rows(IMPORTERS["cional"](tmp_path)["train"]) == [
        ("sec1/a/f_9.jpg", 0, 0, 9, -1, 8),
        ("sec1/a/f_12.jpg", 0, 1, 12, -1, 70),
        ("sec1/b/x.jpg", 1, 2, -1, -1, 70),
    ]
    left_out = "left out 1 images that are not listed, from the folders of those that are"
    assert capsys.readouterr().err == f"{tmp_path}: {left_out}\n"


def test_cional_numbers_ids_that_are_names(tmp_path: Path) -> None:
    plant(tmp_path, "sec1/1.jpg", "sec1/2.jpg", "sec2/3.jpg")
    write_annotations(tmp_path, ("sec1/1.jpg", "p10"), ("sec1/2.jpg", "p9"), ("sec2/3.jpg", 7), name="other.json")
    chosen = write_annotations(tmp_path, ("sec1/1.jpg", "p10"), ("sec1/2.jpg", "p9"), ("sec2/3.jpg", 7))
    assert rows(IMPORTERS["cional"](tmp_path, annotations=chosen)["train"]) == [
        ("sec1/2.jpg", 0, 0, 2, -1, 1),
        ("sec1/1.jpg", 0, 1, 1, -1, 2),
        ("sec2/3.jpg", 1, 2, 3, -1, 0),
    ]


def test_market1501(tmp_path: Path) -> None:
    plant(tmp_path, "bounding_box_train/0007_c2s1_000200_01.jpg", "bounding_box_train/0007_c1s3_000100_02.jpg")
    plant(tmp_path, "bounding_box_train/0007_c1s2_000900_01.jpg")
    plant(tmp_path, "bounding_box_train/0007_c1s3_000100_01.jpg", "bounding_box_train/0002_c1s3_000151_01.jpg")
    plant(tmp_path, "query/0005_c6s4_000010_00.jpg", "bounding_box_train/Thumbs.db")
    plant(tmp_path, "bounding_box_test/-1_c1s1_000401_03.jpg", "bounding_box_test/0000_c1s1_000151_01.jpg")
    plant(tmp_path, "bounding_box_test/0005_c1s1_000001_00.jpg")
    splits = IMPORTERS["market1501"](tmp_path)
    assert list(splits) == ["train", "query", "gallery"]
    assert rows(splits["train"]) == [
        ("bounding_box_train/0007_c1s2_000900_01.jpg", 0, 0, 900, 1, 7),
        ("bounding_box_train/0002_c1s3_000151_01.jpg", 1, 1, 151, 1, 2),
        ("bounding_box_train/0007_c1s3_000100_01.jpg", 1, 2, 100, 1, 7),
        ("bounding_box_train/0007_c1s3_000100_02.jpg", 1, 2, 100, 1, 7),
        ("bounding_box_train/0007_c2s1_000200_01.jpg", 2, 3, 200, 2, 7),
    ]
    assert rows(splits["query"]) == [("query/0005_c6s4_000010_00.jpg", 0, 0, 10, 6, 5)]
    assert rows(splits["gallery"]) == [
        ("bounding_box_test/0000_c1s1_000151_01.jpg", 0, -1, 151, 1, 0),
        ("bounding_box_test/-1_c1s1_000401_03.jpg", 0, -1, 401, 1, -1),
        ("bounding_box_test/0005_c1s1_000001_00.jpg", 0, 0, 1, 1, 5),
    ]


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path: Path, folders: tuple[str, str], capsys: pytest.CaptureFixture) -> None:
    names = {
        "train": "0000/0000_000_01_0303morning_0008_0.jpg 0",
        "val": "0000/0000_001_01_0303morning_0002_1_ex.jpg 0\n\n0001/0001_000_01_0114noon_0005_0.jpg 1\n",
        "query": "0000/0000_000_14_0303noon_0245_0.jpg 0\n",
        "gallery": "0012/0012_007_02_0302afternoon_1439_6.jpg 12\n",
    }
    for name, lines in names.items():
        (tmp_path / f"list_{name}.txt").write_text(lines)
        folder = folders[name in ("query", "gallery")]
        plant(tmp_path, *(f"{folder}/{line.split()[0]}" for line in lines.split("\n") if line))
    splits = IMPORTERS["msmt17"](tmp_path)
    assert capsys.readouterr().err == f"{tmp_path}: this is MSMT17 {'V1' if folders[0] == 'train' else 'V2'}\n"
    assert list(splits) == ["train", "query", "gallery"]
    train, test = folders
    assert rows(splits["train"]) == [
        (f"{train}/0001/0001_000_01_0114noon_0005_0.jpg", 0, 0, 5, 1, 1),
        (f"{train}/0000/0000_001_01_0303morning_0002_1_ex.jpg", 1, 1, 2, 1, 0),
        (f"{train}/0000/0000_000_01_0303morning_0008_0.jpg", 1, 1, 8, 1, 0),
    ]
    assert rows(splits["query"]) == [(f"{test}/0000/0000_000_14_0303noon_0245_0.jpg", 0, 0, 245, 14, 0)]
    assert rows(splits["gallery"]) == [(f"{test}/0012/0012_007_02_0302afternoon_1439_6.jpg", 0, 0, 1439, 2, 12)]


def test_cuhk03np(tmp_path: Path) -> None:
    for boxes, name in (("detected", "0001_c2_11.png"), ("labeled", "0002_c2_11.png")):
        plant(
            tmp_path / boxes, *(f"{folder}/{name}" for folder in ("bounding_box_train", "query", "bounding_box_test"))
        )

    def train(source: Path, **options: str) -> list[tuple]:
        sources = IMPORTERS["cuhk03np"](source, **options)
        assert list(sources) == ["train", "query", "gallery"]
        names = [name for _, name in sources["train"].encoded()]
        return [(name, *labels) for name, labels in zip(names, sources["train"].labels.tolist(), strict=True)]

    assert train(tmp_path) == [("detected/bounding_box_train/0001_c2_11.png", 0, 0, 11, 2, 1)]
    assert train(tmp_path, boxes="labeled") == [("labeled/bounding_box_train/0002_c2_11.png", 0, 0, 11, 2, 2)]
    assert train(tmp_path / "labeled") == [("bounding_box_train/0002_c2_11.png", 0, 0, 11, 2, 2)]


def test_dukemtmc_needs_consent(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plant(tmp_path, "bounding_box_train/0001_c2_f0046182.jpg", "bounding_box_train/0001_c2_f0046000.jpg")
    plant(tmp_path, "query/0005_c2_f0046985.jpg", "bounding_box_test/0005_c5_f0051341.jpg")
    message = refusal("dukemtmc", tmp_path)
    assert "withdrawn" in message and "2019" in message and "--i-understand" in message
    splits = IMPORTERS["dukemtmc"](tmp_path, i_understand=True)
    assert "withdrawn" in capsys.readouterr().err
    assert rows(splits["train"]) == [
        ("bounding_box_train/0001_c2_f0046000.jpg", 0, 0, 46000, 2, 1),
        ("bounding_box_train/0001_c2_f0046182.jpg", 0, 0, 46182, 2, 1),
    ]
    assert rows(splits["query"]) == [("query/0005_c2_f0046985.jpg", 0, 0, 46985, 2, 5)]
    assert rows(splits["gallery"]) == [("bounding_box_test/0005_c5_f0051341.jpg", 0, 0, 51341, 5, 5)]


TABLE = [
    {"path": "a/1.jpg", "video": "v10", "tracklet": 2, "frame": 5, "camera": 3, "identity": 9, "split": "train"},
    {"path": "./a/2.png", "video": "v2", "tracklet": 10, "frame": 1, "camera": -1, "identity": 0, "split": "train"},
    {"path": "b.jpg", "video": "v2", "tracklet": 9, "frame": 0, "camera": 3, "identity": -1, "split": "train"},
    {"path": "c.jpg", "video": "v2", "tracklet": 9, "frame": 7, "camera": 1, "identity": 4, "split": "gallery_2"},
]


def as_csv(table: list[dict]) -> str:
    lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
    return "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"


@pytest.mark.parametrize(("name", "write"), [("table.csv", as_csv), ("table.jsonl", as_jsonl)])
def test_manifest(tmp_path: Path, name: str, write: Callable[[list[dict]], str]) -> None:
    plant(tmp_path / "images", "a/1.jpg", "a/2.png", "b.jpg", "c.jpg")
    for table, options in ((tmp_path / name, {"root": tmp_path / "images"}), (tmp_path / "images" / name, {})):
        table.write_text(write(TABLE))
        splits = IMPORTERS["manifest"](table, **options)
        assert list(splits) == ["gallery_2", "train"]
        assert rows(splits["gallery_2"]) == [("c.jpg", 0, 0, 7, 1, 4)]
        assert rows(splits["train"]) == [
            ("b.jpg", 0, 0, 0, 3, -1),
            ("a/2.png", 0, 1, 1, -1, 0),
            ("a/1.jpg", 1, 2, 5, 3, 9),
        ]


def test_manifest_of_paths_alone(tmp_path: Path) -> None:
    plant(tmp_path, "10.jpg", "9.jpg")
    (tmp_path / "table.csv").write_text("path\n10.jpg\n9.jpg\n")
    splits = IMPORTERS["manifest"](tmp_path / "table.csv")
    assert list(splits) == ["train"]
    assert rows(splits["train"]) == [("9.jpg", 0, 0, -1, -1, -1), ("10.jpg", 0, 1, -1, -1, -1)]


# What all sources promise


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Source]:
    plant(tmp_path / "files", *(f"v/t/{number}.jpg" for number in range(5)))
    plant_sequence(tmp_path / "mot", GT)
    images, crops = IMPORTERS["folders"](tmp_path / "files"), IMPORTERS["mot"](tmp_path / "mot")
    return {"files": images["train"], "mot": crops["train"]}


@pytest.mark.parametrize("kind", ["files", "mot"])
def test_parts_are_small_and_add_up(sources: dict[str, Source], kind: str) -> None:
    source = sources[kind]
    parts = [pickle.loads(pickle.dumps(source.part(start, start + 3))) for start in (0, 3)]
    assert list(source.encoded()) == [image for part in parts for image in part.encoded()]
    assert np.array_equal(source.labels, np.concatenate([part.labels for part in parts]))
    assert len({source.fingerprint(), parts[0].fingerprint(), parts[1].fingerprint()}) == 3
    assert source.part(0, len(source)).fingerprint() == source.fingerprint()


def test_a_part_takes_only_its_own_images_along() -> None:
    many = 10_000
    paths = np.array([f"a rather long folder name/{number}.jpg" for number in range(many)], files.TEXT)
    whole = files.Files("/", paths, np.zeros(many), np.zeros(many))
    assert len(pickle.dumps(whole.part(0, 10))) < 2000


@pytest.mark.parametrize("kind", ["files", "mot"])
def test_the_fingerprint_tells_what_changed(tmp_path: Path, sources: dict[str, Source], kind: str) -> None:
    tree, name = tmp_path / kind, "folders" if kind == "files" else "mot"

    def fingerprint() -> str:
        return IMPORTERS[name](tree)["train"].fingerprint()

    before = fingerprint()
    assert before == sources[kind].fingerprint()
    tree.rename(tmp_path / "elsewhere")
    tree = tmp_path / "elsewhere"
    assert fingerprint() == before
    image = tree / ("v/t/1.jpg" if kind == "files" else "img1/000002.png")
    image.write_bytes(image.read_bytes() + b"\0")
    longer = fingerprint()
    if kind == "files":
        image.rename(image.with_name("01.jpg"))  # its frame stays 1
    else:
        boxes = tree / "gt" / "gt.txt"
        boxes.write_text(boxes.read_text().replace("2,7,10,20", "2,7,10,21"))
    assert len({before, longer, fingerprint()}) == 3


def test_order_does_not_depend_on_the_order_of_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, *(f"v{video}/t{track}/{frame}.jpg" for video in range(3) for track in range(3) for frame in "ab1"))
    plant(tmp_path / "other", *(f"DE/Bonn/a/{name}.jpg" for name in "abcdefgh"))
    before = IMPORTERS["folders"](tmp_path)["train"]
    real = listing.list_names

    def shuffled_names(folder: Path, **options: Any) -> list[str]:
        return sorted(real(folder, **options), key=lambda name: zlib.crc32(name.encode()))

    monkeypatch.setattr(listing, "list_names", shuffled_names)
    shuffled = IMPORTERS["folders"](tmp_path)["train"]
    assert rows(shuffled) == rows(before) and shuffled.fingerprint() == before.fingerprint()
    assert "'DE/Bonn/a/a.jpg'" in refusal("lupnl", tmp_path / "other")


def test_numbers_follow_natural_order() -> None:
    assert natural_ranks(np.array(["v10", "v9", "v10", "a", "v 9"], files.TEXT)).tolist() == [3, 2, 3, 0, 1]
    assert dense_ranks(np.array([5, 2, 5, 2]), np.array([0, 7, 0, 3])).tolist() == [2, 1, 2, 0]
