"""Who is followed, what a detector's boxes become, and what the detector that needs no download sees."""

import json
from pathlib import Path

import numpy as np
import pytest

from cion_jax.errors import UserError
from tfrecords_tools.video.colours import colours_of
from tfrecords_tools.video.detectors import Detections
from tfrecords_tools.video.given import find_boxes, read_boxes
from tfrecords_tools.video.links import link, rows_of
from tfrecords_tools.video.tracker import Tracker
from videos import BLUE, RED, Walker, pictures, write_mot

RATE = 10.0


def follow(walkers: list[Walker], hidden: dict[int, list[Walker]] | None = None, scores: float = 0.9) -> np.ndarray:
    """Rows of what is made of the walkers' boxes in 60 frames, of which some are hidden."""
    tracker = Tracker(RATE)
    for frame, pixels in enumerate(pictures(walkers, 60), 1):
        seen = [walker for walker in walkers if walker.box(frame) and walker not in (hidden or {}).get(frame, [])]
        boxes = np.array([walker.box(frame) for walker in seen]).reshape(-1, 4)
        tracker.update(frame, boxes, np.full(len(boxes), scores), colours_of(pixels, boxes))
    return rows_of(link(tracker.tracks(), RATE, 2.0), np.arange(1, 61), RATE)


def test_people_who_cross_keep_their_numbers() -> None:
    """While one walks behind the other there is no box of hers, and the nearest box afterwards is not the right one."""
    walkers = [Walker((220, 30, 30), 0, 2, top=20), Walker((30, 40, 220), 130, -2, top=24)]
    behind = {frame: [walkers[0]] for frame in range(27, 41)}
    rows = follow(walkers, behind)
    assert len(np.unique(rows["tracklet"])) == 2
    for row in rows[rows["score"] > 0]:
        of_first = abs(row["box"][0] - walkers[0].box(row["frame"])[0]) + abs(row["box"][1] - 20) < 1
        assert (row["tracklet"] == 0) == of_first


@pytest.mark.parametrize(("gap", "tracklets", "filled"), [(4, 1, 4), (8, 1, 0), (14, 1, 0), (25, 2, 0)])
def test_gaps(gap: int, tracklets: int, filled: int) -> None:
    """A short gap is filled; over a longer one the tracklet goes on, without boxes; over two seconds it ends."""
    rows = follow([RED], {frame: [RED] for frame in range(20, 20 + gap)})
    assert len(np.unique(rows["tracklet"])) == tracklets
    between = rows[(rows["frame"] >= 20) & (rows["frame"] < 20 + gap)]
    assert len(between) == filled and not between["score"].any()
    assert all(abs(row["box"][0] - RED.box(row["frame"])[0]) < 1e-3 for row in between)


def test_somebody_else_does_not_go_on_with_a_tracklet() -> None:
    green = Walker((30, 200, 30), RED.left + 24 * RED.speed, RED.speed, first=25)
    gone = {frame: [RED] for frame in range(20, 61)}
    assert len(np.unique(follow([RED, green], gone)["tracklet"])) == 2
    again = Walker(RED.colour, green.left, green.speed, first=25)
    assert len(np.unique(follow([RED, again], gone)["tracklet"])) == 1


def test_unsure_boxes_go_on_with_a_tracklet_but_begin_none() -> None:
    assert not len(follow([RED], scores=0.4))
    tracker = Tracker(RATE)
    for frame, pixels in enumerate(pictures([RED], 30), 1):
        boxes = np.array([RED.box(frame)])
        tracker.update(frame, boxes, np.array([0.9 if frame < 5 else 0.2]), colours_of(pixels, boxes))
    (track,) = tracker.tracks()
    assert track.frames == list(range(1, 31))


def same(first: Detections, second: Detections) -> bool:
    order = [np.lexsort(boxes.T) for boxes, _ in (first, second)]
    return all(np.allclose(a[order[0]], b[order[1]], atol=1e-2) for a, b in zip(first, second, strict=True))


def test_the_three_formats_of_boxes_say_the_same(tmp_path: Path) -> None:
    mot = read_boxes(write_mot(tmp_path / "a.txt", (RED, BLUE), 5))
    coco: dict[str, list[dict]] = {"images": [], "annotations": []}
    (tmp_path / "yolo").mkdir()
    for frame in range(1, 6):
        coco["images"].append({"id": frame + 70, "file_name": f"a_{frame:05d}.jpg"})
        lines = []
        for walker in (RED, BLUE):
            left, top, right, bottom = walker.box(frame) or (0, 0, 0, 0)
            box = [left, top, right - left, bottom - top]
            coco["annotations"].append({"image_id": frame + 70, "bbox": box, "score": 0.9, "category_id": 1})
            shares = (left + right) / 320, (top + bottom) / 192, (right - left) / 160, (bottom - top) / 96
            lines.append(" ".join(map(str, (0, *shares, 0.9))))
        (tmp_path / "yolo" / f"a_{frame}.txt").write_text("\n".join([*lines, "2 0.5 0.5 0.1 0.1 0.9"]))
    coco["annotations"].append({"image_id": 71, "bbox": [1, 2, 3, 4], "category_id": 3})
    (tmp_path / "a.json").write_text(json.dumps(coco))
    for name, left_out in (("a.json", 1), ("yolo", 5)):
        boxes = read_boxes(tmp_path / name)
        assert boxes.notes == (f"{tmp_path / name}: left out {left_out} boxes of other classes than person",)
        for frame in range(7):
            assert same(mot.of_frame(frame, 160, 96), boxes.of_frame(frame, 160, 96))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1,-1,2,3\n", "a.txt:1: '1,-1,2,3' is not frame,id,left"),
        ("a.txt", "1,-1,2,3,nan,5,1\n", "a.txt:1: "),
        ("a.txt", "", "a.txt: holds no box of a person"),
        ("a.json", "{}", "a.json: is not COCO JSON"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}', "has no frame number"),
        ("f/a.txt", "0 1 1 1 1", "a.txt: its name has no frame number"),
        ("f/a1.txt", "0 1 1 1", "a1.txt:1: '0 1 1 1' is not class x y"),
    ],
)
def test_boxes_that_cannot_be_read_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        read_boxes(tmp_path / name.split("/")[0])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_scores_of_another_scale_count_as_sure_and_that_is_said(tmp_path: Path) -> None:
    boxes = read_boxes(write_mot(tmp_path / "a.txt", (RED,), 3, score=37.5))
    assert boxes.notes == (f"{tmp_path / 'a.txt'}: scores are not between 0 and 1; every box counts as sure",)
    assert boxes.of_frame(1, 160, 96)[1].tolist() == [1]


def test_each_video_finds_its_own_boxes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b").mkdir()
    assert find_boxes(tmp_path, Path("x/a.mp4"), 2) == tmp_path / "a.txt"
    assert find_boxes(tmp_path, Path("x/b.mp4"), 2) == tmp_path / "b"
    assert find_boxes(tmp_path / "a.txt", Path("x/c.mp4"), 1) == tmp_path / "a.txt"
    with pytest.raises(UserError, match=r"has no boxes for c.mp4; name them c.txt, c.json, c"):
        find_boxes(tmp_path, Path("x/c.mp4"), 2)
