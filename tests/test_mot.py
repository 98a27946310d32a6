"""Boxes in video frames: exact crops and labels, and whatever must be refused."""

from pathlib import Path

import pytest

from cion_jax.data.images import decode, encode_jpeg
from layouts import GT, image_bytes, plant, plant_sequence, png_header, refusal
from tfrecords_tools import files
from tfrecords_tools.importers import IMPORTERS

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
    result = list(crops.encoded())
    assert [name for _, name in result] == [
        "S-2/img1/00000003.png#id7",
        *(f"S-10/img1/{frame:06d}.png#id{track}" for track, frame, *_ in GT_CROPS),
    ]
    for (data, _), (_, frame, left, top, right, bottom) in zip(result[1:], GT_CROPS, strict=True):
        pixels = decode(image_bytes(f"{frame:06d}.png", 100, 120))[top:bottom, left:right]
        assert data == encode_jpeg(pixels, 95)


def test_mot_says_what_it_leaves_out_and_keeps_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of GT: a box of conf 0, a car, a person hardly visible, and three too low inside the frame, the only ones of
    their tracks."""
    plant_sequence(tmp_path / "S-10", GT)
    plant_sequence(tmp_path / "S-2", "1,7,0,0,20,50,0.4\n")
    crops = IMPORTERS["mot"](tmp_path)["train"]
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: left out 1 boxes that are not to be considered (conf 0)",
        f"{tmp_path}: left out 1 boxes of other classes than pedestrian",
        f"{tmp_path}: left out 1 boxes of which less than 0.25 is visible (--min-visibility)",
        f"{tmp_path}: left out 3 boxes that have fewer than 48 rows of pixels inside the frame (--min-height), "
        "and with them 3 whole tracks",
    ]
    assert list(crops.names) == [(0, 0, "S-2", "7"), (1, 1, "S-10", "3"), (2, 1, "S-10", "7"), (3, 1, "S-10", "12")]


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
