"""Every layout as a tiny tree: exact labels and order, and whatever must be refused, in one line that names it."""

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cion_jax.data.images import HEADER_BYTES, MAX_PIXELS, decode, encode_jpeg
from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools import files
from tfrecords_tools.importers import IMPORTERS, listing
from tfrecords_tools.importers.numbering import dense_ranks, natural_ranks


def image_bytes(path: str, height: int = 4, width: int = 3) -> bytes:
    """A different picture for each path, in the format of its ending."""
    pixels = np.random.default_rng(zlib.crc32(path.encode())).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG" if path.lower().endswith(".png") else "JPEG")
    return file.getvalue()


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(image_bytes(path))
    return root


def rows(source: Source) -> list[tuple]:
    """(name, video, tracklet, frame, camera, identity) of each image; its bytes must be the planted ones."""
    found = list(source.encoded())
    assert len(found) == len(source) == len(source.labels)
    for data, name in found:
        assert data == image_bytes(name)
    return [(name, *labels.tolist()) for (_, name), labels in zip(found, source.labels, strict=True)]


def refusal(kind: str, source: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        IMPORTERS[kind](source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    data = bytearray(image_bytes("small.jpg"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


# Layouts


def test_folders(tmp_path: Path) -> None:
    plant(tmp_path, "v10/t1/c9_0007.JPG", "v10/t1/c9_0003.jpeg", "v2/t1/10.png", "v2/t1/9.png", "v2/t10/1.jpg")
    plant(tmp_path, "v2/t2/b.jpg", "v2/t2/x12.jpg", "v2/t2/x2.jpg", "v2/t3/20240101123000.jpg", "v2/t3/8.jpg")
    plant(
        tmp_path, ".hidden/t/1.jpg", "v2/.t/1.jpg", "v2/t1/.1.jpg", "v2/t1/notes.txt", "v2/cover.jpg", "v2/t1/x/1.jpg"
    )
    splits = IMPORTERS["folders"](tmp_path)
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


def write_annotations(root: Path, *entries: tuple[str, object], name: str = "train.json") -> Path:
    (root / name).write_text(json.dumps([{"file_path": path, "id": identity} for path, identity in entries]))
    return root / name


def test_cional(tmp_path: Path) -> None:
    plant(tmp_path, "sec1/a/f_12.jpg", "sec1/a/f_9.jpg", "sec1/b/x.jpg", "sec1/b/unlisted.jpg")
    write_annotations(tmp_path, ("sec1/b/x.jpg", "0070"), ("./sec1/a/f_12.jpg", 70), ("sec1/a/f_9.jpg", 8))
    assert rows(IMPORTERS["cional"](tmp_path)["train"]) == [
        ("sec1/a/f_9.jpg", 0, 0, 9, -1, 8),
        ("sec1/a/f_12.jpg", 0, 1, 12, -1, 70),
        ("sec1/b/x.jpg", 1, 2, -1, -1, 70),
    ]


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
def test_msmt17(tmp_path: Path, folders: tuple[str, str]) -> None:
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


def as_jsonl(table: list[dict]) -> str:
    return "\n".join(map(json.dumps, table)) + "\n\n"


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


# Boxes in video frames


def plant_sequence(sequence: Path, boxes: str, frames: tuple[str, ...] = ("000001.png", "000002.png")) -> Path:
    """A sequence of frames of 120 x 100 pixels without loss, so that crops can be compared."""
    for folder in ("img1", "gt"):
        (sequence / folder).mkdir(parents=True, exist_ok=True)
    for frame in frames:
        (sequence / "img1" / frame).write_bytes(image_bytes(frame, 100, 120))
    (sequence / "gt" / "gt.txt").write_text(boxes)
    return sequence


GT = """\
2,7,10,20,30,60,1,1,1
1,7,10,20,30,60,1,1,0.25
1,12,-5.4,-10,25.4,70,1,1,0.9

1,3,99.6,50,50,1000,1,1,0.5
1,4,10,20,30,60,0,1,1
1,5,10,20,30,60,1,7,1
1,6,10,20,30,60,1,1,0.2
1,8,10,20,30,47,1,1,1
1,9,10,70,30,60,1,1,1
1,11,121,0,30,60,1,1,1
"""
GT_CROPS = [  # track, frame, left, top, right, bottom, in the order of frames and tracks
    (3, 1, 100, 50, 120, 100),
    (7, 1, 10, 20, 40, 80),
    (12, 1, 0, 0, 20, 60),
    (7, 2, 10, 20, 40, 80),
]


def test_mot(tmp_path: Path) -> None:
    plant_sequence(tmp_path / "S-10", GT)
    plant_sequence(tmp_path / "S-2", "3,7,0,0,20,50,0.4\n", ("00000003.png",))  # another numbering of frames
    plant(tmp_path, "no_sequence/1.jpg")
    splits = IMPORTERS["mot"](tmp_path)
    crops = splits["train"]
    assert list(splits) == ["train"] and len(crops) == 5
    tracklets = {3: 1, 7: 2, 12: 3}
    assert crops.labels.tolist() == [
        (0, 0, 3, -1, -1),
        *((1, tracklets[track], frame, -1, -1) for track, frame, *_ in GT_CROPS),
    ]
    found = list(crops.encoded())
    assert [name for _, name in found] == [
        "S-2/img1/00000003.png#id7",
        *(f"S-10/img1/{frame:06d}.png#id{track}" for track, frame, *_ in GT_CROPS),
    ]
    for (data, _), (_, frame, left, top, right, bottom) in zip(found[1:], GT_CROPS, strict=True):
        pixels = decode(image_bytes(f"{frame:06d}.png", 100, 120))[top:bottom, left:right]
        assert data == encode_jpeg(pixels, 95)


def test_mot_one_sequence_with_other_boxes_and_limits(tmp_path: Path) -> None:
    plant_sequence(tmp_path, GT)
    (tmp_path / "track").mkdir()
    (tmp_path / "track" / "tracker.txt").write_text("1,2,0,0,9,20,0.7,-1,-1,-1\n2,2,0,0,9,19,0.7,-1,-1,-1\n")
    crops = IMPORTERS["mot"](tmp_path, boxes="track/*.txt", min_height=20)["train"]
    assert [name for _, name in crops.encoded()] == ["img1/000001.png#id2"]
    crops = IMPORTERS["mot"](tmp_path, min_visibility=0.2, min_height=47)["train"]
    assert sorted(name.partition("#id")[2] for _, name in crops.encoded()) == ["12", "3", "6", "7", "7", "8"]


def test_crops_decode_each_frame_once_and_pass_damage_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = IMPORTERS["mot"](plant_sequence(tmp_path, GT))["train"]
    decoded = []
    monkeypatch.setattr(files, "decode", lambda data: decoded.append(data) or decode(data))
    assert len(list(crops.encoded())) == 4 and len(decoded) == 2
    damaged = image_bytes("000002.png", 100, 120)[:200]
    (tmp_path / "img1" / "000002.png").write_bytes(damaged)
    assert [data == damaged for data, _ in crops.encoded()] == [False, False, False, True]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("1,-1,10,20,30,60,1,-1,-1,-1", "gt.txt:3: the box has no track; run a tracker"),
        ("1,7,10,20,30,60,1,1,1", "gt.txt:3: a second box of track 7 in frame 1"),
        ("9,7,10,20,30,60,1,1,1", "gt.txt:3: frame 9 has no image"),
        ("1,8,10,20,30,60", "gt.txt:3: '1,8,10,20,30,60' is not frame,id"),
        ("1,8,10,20,30,60,1,1", "gt.txt:3: '1,8,10,20,30,60,1,1' is not"),
        ("1,8,ten,20,30,60,1", "gt.txt:3: '1,8,ten,20,30,60,1' is not"),
        ("1,8,nan,20,30,60,1", "gt.txt:3: '1,8,nan"),
        ("1,8,1e300,20,30,60,1", "gt.txt:3: '1,8,1e300"),
        ("1.5,8,10,20,30,60,1", "gt.txt:3: '1.5,8"),
        ("1,8.5,10,20,30,60,1", "gt.txt:3: '1,8.5"),
    ],
)
def test_mot_refuses_lines(tmp_path: Path, line: str, named: str) -> None:
    assert named in refusal("mot", plant_sequence(tmp_path, f"1,7,10,20,30,60,1,1,1\n\n{line}\n"))


def test_mot_refuses_sequences(tmp_path: Path) -> None:
    assert f"no images found under {tmp_path}; expected SEQUENCE/img1" in refusal("mot", tmp_path)
    sequence = plant_sequence(tmp_path / "S", "1,7,10,20,30,40,1,1,1\n")
    assert f"no boxes left under {tmp_path}" in refusal("mot", tmp_path)
    for boxes in ("track/*.txt", "/gt.txt", ""):
        assert f"{sequence}: 0 files match {boxes!r}" in refusal("mot", tmp_path, boxes=boxes)
    plant(sequence, "img1/1.jpg")
    assert "'S/img1/1.jpg'" in refusal("mot", tmp_path) and "'S/img1/000001.png'" in refusal("mot", tmp_path)
    (sequence / "img1" / "1.jpg").unlink()
    (sequence / "gt" / "gt.txt").write_text("1,7,10,20,30,60,1,1,1\n")
    (sequence / "img1" / "000001.png").write_bytes(png_header(40_000, 40_000))
    assert "'S/img1/000001.png'" in refusal("mot", tmp_path) and "claims" in refusal("mot", tmp_path)


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

    def shuffled_names(folder: Path, *, folders: bool) -> list[str]:
        return sorted(real(folder, folders=folders), key=lambda name: zlib.crc32(name.encode()))

    monkeypatch.setattr(listing, "list_names", shuffled_names)
    shuffled = IMPORTERS["folders"](tmp_path)["train"]
    assert rows(shuffled) == rows(before) and shuffled.fingerprint() == before.fingerprint()
    assert "'DE/Bonn/a/a.jpg'" in refusal("lupnl", tmp_path / "other")


def test_numbers_follow_natural_order() -> None:
    assert natural_ranks(np.array(["v10", "v9", "v10", "a", "v 9"], files.TEXT)).tolist() == [3, 2, 3, 0, 1]
    assert dense_ranks(np.array([5, 2, 5, 2]), np.array([0, 7, 0, 3])).tolist() == [2, 1, 2, 0]


# Refusals


def listed_in(root: Path, path: str) -> tuple[str, Path]:
    """A manifest that lists one image beside a good one."""
    plant(root, "good.jpg")
    (root / "table.jsonl").write_text(as_jsonl([{"path": "good.jpg"}, {"path": path}]))
    return "manifest", root / "table.jsonl"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.jpg", "must be relative and lead down"),
        ("folder/../../outside.jpg", "must be relative and lead down"),
        ("{outside}/outside.jpg", "must be relative and lead down"),
        ("missing.jpg", "No such file"),
        ("missing/a.jpg", "No such file"),
        ("folder", "not a file"),
        ("", "must be relative and lead down"),
        ("pipe.jpg", "not a file"),
        ("null\0.jpg", "null"),
        ("x" * 300, "too long"),
        ("text.jpg", "neither JPEG nor PNG"),
        ("empty.jpg", "empty"),
        ("huge.jpg", "claims 40000 x 40000"),
        ("huge.png", "claims 40000 x 40000"),
        ("long.jpg", "bytes; at most"),
        ("link.jpg", "a link leads out"),
        ("chain.jpg", "a link leads out"),
        ("linked/outside.jpg", "a link leads out"),
        ("linked/deep/outside.jpg", "a link leads out"),
        ("broken.jpg", "No such file"),
        ("loop.jpg", "Too many levels of symbolic links"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, path: str, reason: str) -> None:
    outside = plant(tmp_path / "outside", "outside.jpg", "deep/outside.jpg")
    root = plant(tmp_path / "root", "folder/1.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "text.jpg").write_text("<html>")
    (root / "empty.jpg").touch()
    (root / "huge.jpg").write_bytes(jpeg_header(40_000, 40_000))
    (root / "huge.png").write_bytes(png_header(40_000, 40_000))
    with (root / "long.jpg").open("wb") as file:
        file.truncate(4 * MAX_PIXELS + 1)
    (root / "link.jpg").symlink_to(outside / "outside.jpg")
    (root / "chain.jpg").symlink_to("link.jpg")
    (root / "linked").symlink_to(outside)
    (root / "broken.jpg").symlink_to("nothing.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    path = path.format(outside=outside)
    kind, source = listed_in(root, path)
    message = refusal(kind, source)
    assert repr(path or ".") in message and reason in message and "more)" not in message


def test_links_that_stay_inside_and_long_metadata_are_accepted(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", "real/t/1.jpg")
    (root / "real" / "t" / "2.jpg").symlink_to(root / "real" / "t" / "1.jpg")
    (root / "linked").symlink_to("real")
    metadata = b"".join(b"\xff\xe1\xff\xff" + bytes(0xFFFD) for _ in range(3))
    data = image_bytes("1.jpg")
    (root / "real" / "t" / "3.jpg").write_bytes(data[:2] + metadata + data[2:])
    assert len(metadata) > HEADER_BYTES
    (tmp_path / "alias").symlink_to(root)
    for source in (root, tmp_path / "alias"):
        assert len(IMPORTERS["folders"](source)["train"]) == 6


@pytest.mark.parametrize("link", ["v", "v/t", "v/t/1.jpg"])
def test_listed_links_that_lead_out_are_refused(tmp_path: Path, link: str) -> None:
    plant(tmp_path / "outside", "v/t/1.jpg")
    plant(tmp_path / "root", "w/t/1.jpg")
    (tmp_path / "root" / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "root" / link).symlink_to(tmp_path / "outside" / link)
    message = refusal("folders", tmp_path / "root")
    assert "'v/t/1.jpg'" in message and "a link leads out" in message


def test_a_root_is_not_confused_with_its_neighbour(tmp_path: Path) -> None:
    plant(tmp_path, "root-2/1.jpg", "root/v/t/1.jpg")
    (tmp_path / "root" / "v" / "t" / "2.jpg").symlink_to(tmp_path / "root-2" / "1.jpg")
    assert "'v/t/2.jpg'" in refusal("folders", tmp_path / "root")


def test_the_first_of_many_refusals_is_named(tmp_path: Path) -> None:
    plant(tmp_path, *(f"v/t/{number:04d}.jpg" for number in range(600)))
    for number in (599, 300, 17):
        (tmp_path / f"v/t/{number:04d}.jpg").write_text("line\nline")
    message = refusal("folders", tmp_path)
    assert "'v/t/0017.jpg'" in message and "(and 2 more)" in message


def test_checking_reads_only_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "v/t/1.jpg")
    with (tmp_path / "v/t/1.jpg").open("ab") as file:
        file.truncate(HEADER_BYTES * 3)
    seen = []
    monkeypatch.setattr(files, "header", lambda data: seen.append(len(data)) or (4, 3))
    IMPORTERS["folders"](tmp_path)
    assert seen == [HEADER_BYTES]


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    source = IMPORTERS["folders"](plant(tmp_path, "v/t/1.jpg"))["train"]
    (tmp_path / "v/t/1.jpg").unlink()
    with pytest.raises(UserError, match=r"^'v/t/1\.jpg' in .*No such file[^\n]*$"):
        list(source.encoded())


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v" / "t").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/v/t/\xff.jpg")).touch()
    assert r"\udcff.jpg" in refusal("folders", tmp_path)


@pytest.mark.parametrize("kind", ["folders", "lupnl", "mot", "market1501", "cuhk03np", "msmt17", "cional", "manifest"])
def test_empty_and_missing_folders_are_refused(tmp_path: Path, kind: str) -> None:
    assert str(tmp_path) in refusal(kind, tmp_path)
    assert str(tmp_path / "missing") in refusal(kind, tmp_path / "missing")


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / folder).mkdir()
    expected = f"no images found under {tmp_path}; expected "
    assert f"{expected}video/tracklet/image.jpg" in refusal("folders", tmp_path)
    assert f"{expected}country/city/video/" in refusal("lupnl", tmp_path)
    assert f"{expected}bounding_box_train/0002_c1s1_000451_03.jpg" in refusal("market1501", tmp_path)
    (tmp_path / "list_train.txt").touch()
    (tmp_path / "list_val.txt").touch()
    assert f"{expected}lines like" in refusal("msmt17", tmp_path)
    (tmp_path / "ids.json").write_text("[]")
    assert f"{expected}the images that" in refusal("cional", tmp_path)
    (tmp_path / "table.csv").write_text("path\n")
    assert f"no images found in {tmp_path / 'table.csv'}" in refusal("manifest", tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("market1501", "bounding_box_train/0002_c1s1_000451.jpg"),
        ("market1501", "bounding_box_train/0002_c1s1_000451_03.jpg.jpg"),
        ("cuhk03np", "bounding_box_train/0001_1_1.png"),
        ("lupnl", "DE/Bonn/a/00001_00002.jpg"),
        ("lupnl", "DE/Bonn/a/1_12345678901_0.jpg"),
        ("msmt17", "train/0000/0000_01_0303morning_0008_0.jpg"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, kind: str, path: str) -> None:
    plant(tmp_path, path)
    for name in ("train", "val"):
        (tmp_path / f"list_{name}.txt").write_text(f"{path.removeprefix('train/')} 0\n")
    message = refusal(kind, tmp_path)
    assert repr(path) in message and "not a name like" in message


@pytest.mark.parametrize("line", ["0000/a.jpg", "0000/a.jpg x", "0000/a.jpg -1", "0000/a.jpg 12345678901"])
def test_msmt17_refuses_lines(tmp_path: Path, line: str) -> None:
    (tmp_path / "list_train.txt").write_text(f"\n{line}\n")
    assert f"list_train.txt:2: {line!r}" in refusal("msmt17", tmp_path)


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    assert "'good.jpg'" in refusal(*listed_in(tmp_path, "./good.jpg"))
    write_annotations(tmp_path, ("good.jpg", 1), ("good.jpg", 2), ("good.jpg", 3))
    message = refusal("cional", tmp_path)
    assert "'good.jpg'" in message and "listed twice (and 1 more)" in message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "usable JSON"),
        ("\udcff", "usable JSON"),
        ("[" * 100_000, "usable JSON"),
        ('[{"file_path": "good.jpg", "id": ' + "9" * 5000 + "}]", "usable JSON"),
        ('{"file_path": "good.jpg", "id": 1}', "holds no list"),
        ('[{"file_path": "good.jpg", "id": 1}, 7]', "entry 2 "),
        ('[{"file_path": "good.jpg"}]', "entry 1 "),
        ('[{"id": 1}]', "entry 1 "),
        ('[{"file_path": "good.jpg", "id": true}]', "entry 1 "),
        ('[{"file_path": "good.jpg", "id": 1.5}]', "entry 1 "),
        ('[{"file_path": ["good.jpg"], "id": 1}]', "entry 1 "),
        ('[{"file_path": "\\ud800.jpg", "id": 1}]', r"\ud800.jpg"),
    ],
)
def test_cional_refuses_other_json(tmp_path: Path, text: str, named: str) -> None:
    plant(tmp_path, "good.jpg")
    (tmp_path / "ids.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = refusal("cional", tmp_path)
    assert named in message and (r"\ud800" in named or "ids.json" in message)


def test_cional_needs_one_json_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg")
    assert "holds 0 *.json files" in refusal("cional", tmp_path)
    write_annotations(tmp_path, ("a/1.jpg", 1), name="a.json")
    write_annotations(tmp_path, ("a/1.jpg", 1), name="b.json")
    assert "holds 2 *.json files" in refusal("cional", tmp_path) and "--annotations" in refusal("cional", tmp_path)
    assert "c.json" in refusal("cional", tmp_path, annotations=tmp_path / "c.json")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.csv", "path,colour\ngood.jpg,red\n", "a.csv:2: unknown column 'colour'; the known ones are path, video,"),
        ("a.csv", "video\nv1\n", "a.csv:2: has the columns video; all rows need path"),
        ("a.csv", "path,path\na.jpg,b.jpg\n", "a.csv:1: a column stands twice"),
        ("a.csv", "path,video\ngood.jpg,1\ngood.jpg\n", "a.csv:3: 1 values for 2 columns"),
        ("a.csv", 'path\n"good.jpg', "a.csv:2: not usable CSV"),
        ("a.csv", "path\n" + "x" * 200_000, "a.csv:2: not usable CSV"),
        ("a.csv", "path\n\udcff.jpg\n", "a.csv: is not UTF-8"),
        ("a.csv", "path,frame\ngood.jpg,1.5\n", "a.csv:2: frame '1.5' is no whole number"),
        ("a.csv", "path,camera\ngood.jpg,\n", "a.csv:2: camera '' is no whole number"),
        ("a.csv", "path,identity\ngood.jpg,4294967296\n", "a.csv:2: identity '4294967296' is no whole number"),
        ("a.csv", "path,identity\ngood.jpg,-2\n", "a.csv:2: identity '-2' is no whole number"),
        ("a.csv", "path,split\ngood.jpg,../x\n", "a.csv:2: split '../x'"),
        ("a.csv", "path,split\ngood.jpg,Train\n", "a.csv:2: split 'Train'"),
        ("a.jsonl", '{"path": "good.jpg"}\n{', "a.jsonl:2: not usable JSON"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: not usable JSON"),
        ("a.jsonl", '["good.jpg"]', "a.jsonl:1: not an object"),
        ("a.jsonl", "{}", "a.jsonl:1: has the columns"),
        ("a.jsonl", '{"path": "good.jpg"}\n{"path": "b.jpg", "video": 1}', "a.jsonl:2: has the columns path, video"),
        ("a.jsonl", '{"path": "good.jpg", "a\\nb": 1}', r"a.jsonl:1: unknown column 'a\nb'"),
        ("a.jsonl", '{"path": 7, "video": null}', "a.jsonl:1: video is neither"),
        ("a.jsonl", '{"path": "good.jpg", "tracklet": true}', "a.jsonl:1: tracklet is neither"),
        ("a.jsonl", '{"path": "good.jpg", "frame": 1.0}', "a.jsonl:1: frame 'float' is no whole number"),
        ("a.jsonl", '{"path": "good.jpg", "frame": true}', "a.jsonl:1: frame 'True' is no whole number"),
        ("a.txt", "good.jpg", "a.txt: ends neither with .csv nor with .jsonl"),
    ],
)
def test_manifest_refuses_other_tables(tmp_path: Path, name: str, text: str, named: str) -> None:
    plant(tmp_path, "good.jpg")
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert named in refusal("manifest", tmp_path / name)
