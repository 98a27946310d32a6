"""Films that the tests draw, as records: who is cut out, what is told of it, and what happens to files with faults."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import Tracking, Writing
from cion_jax.data.boxes import BOXES_FILE
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from sources import contents
from tfrecords_tools.check import problems
from tfrecords_tools.sheet import rows_of, sheet_of
from tfrecords_tools.tracklet_names import called, names_file, read_names
from tfrecords_tools.video.detectors import Given
from tfrecords_tools.video.frames import Frame, Reading
from tfrecords_tools.video.importing import import_videos
from videos import BLUE, RED, Walker, pictures, write_mot, write_video

ONE = Writing(images_per_shard=16, workers=1)
FRAMES = 40


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films with two walkers each, and the boxes of both. Not to be written to."""
    folder = tmp_path_factory.mktemp("films")
    for name in ("cam2_a", "cam7_b"):
        write_video(folder / "films" / f"{name}.mp4", pictures((RED, BLUE), FRAMES))
        (folder / "boxes").mkdir(exist_ok=True)
        write_mot(folder / "boxes" / f"{name}.txt", (RED, BLUE), FRAMES)
    return folder


def settings(films: Path, **more: object) -> Tracking:
    return Tracking(boxes=films / "boxes", **more)  # type: ignore[arg-type]


def hue(records: Records, number: int) -> str:
    """Which walker an image shows."""
    red, _, blue = records.pixels(number)[20:40, 8:16].reshape(-1, 3).mean(0)
    return "red" if red > blue + 100 else "blue" if blue > red + 100 else "nobody"


def test_each_walker_becomes_a_tracklet(films: Path, tmp_path: Path) -> None:
    import_videos(films / "films", tmp_path / "out", settings(films, camera_pattern="cam([0-9]+)"), ONE)
    records = Records(tmp_path / "out")
    index = records.index
    assert list(problems(tmp_path / "out")) == [] and len(index) == 2 * 2 * FRAMES
    assert [*dict.fromkeys(zip(index["video"].tolist(), index["camera"].tolist(), strict=True))] == [(0, 2), (1, 7)]
    shown = {(int(row["tracklet"]), hue(records, number)) for number, row in enumerate(index)}
    assert len(shown) == 4 and sorted(colour for _, colour in shown) == ["blue", "blue", "red", "red"]
    for tracklet in range(4):
        assert index["frame"][index["tracklet"] == tracklet].tolist() == list(range(1, FRAMES + 1))
    boxes = np.load(tmp_path / "out" / BOXES_FILE)
    first = boxes[(index["video"] == 0) & (index["frame"] == 5)]
    assert sorted(zip(first["left"], first["top"], first["width"], first["height"], strict=True)) == [
        (8, 20, 24, 60),
        (116, 30, 24, 60),
    ]
    assert np.allclose(boxes["score"], 0.9) and np.allclose(boxes["seconds"], (index["frame"] - 1) / 10)
    assert records[3].source.startswith("cam2_a.mp4#000002#id")
    table = (tmp_path / "out" / "cion-train.tracklets.csv").read_text().splitlines()
    assert table[0] == "tracklet,video,video_name,tracklet_name" and table[3] == "2,1,cam7_b.mp4@0s,0"


def test_long_videos_are_cut_into_stretches(films: Path, tmp_path: Path) -> None:
    import_videos(films / "films" / "cam2_a.mp4", tmp_path / "out", settings(films, minutes=2 / 60), ONE)
    index = Records(tmp_path / "out").index
    assert [np.unique(index["frame"][index["video"] == video]).tolist() for video in (0, 1)] == [
        list(range(1, 21)),
        list(range(21, 41)),
    ]
    assert not {*index["tracklet"][index["video"] == 0]} & {*index["tracklet"][index["video"] == 1]}
    assert set(index["camera"]) == {0}


def test_every_fourth_frame(films: Path, tmp_path: Path) -> None:
    import_videos(films / "films" / "cam2_a.mp4", tmp_path / "out", settings(films, every=4), ONE)
    index = Records(tmp_path / "out").index
    assert (
        np.unique(index["frame"]).tolist() == list(range(1, FRAMES + 1, 4)) and len(np.unique(index["tracklet"])) == 2
    )


def test_a_killed_import_goes_on_to_the_same_bytes(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that are left alone, and one that is stopped in the third of four stretches, write the same."""
    tracking = settings(films, minutes=2 / 60)
    import_videos(films / "films", tmp_path / "whole", tracking, Writing(images_per_shard=16, workers=2))
    look = Given.__call__
    looks = []

    def interrupted(self: Given, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        looks.append(frame.number)
        if len(looks) == 50:
            raise KeyboardInterrupt
        return look(self, frame)

    monkeypatch.setattr(Given, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_videos(films / "films", tmp_path / "out", tracking, ONE)
    import_videos(films / "films", tmp_path / "out", tracking, ONE)
    assert looks[50:] == list(range(1, FRAMES + 1))  # the second video from its first stretch on, the first not again
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    import_videos(films / "films", tmp_path / "out", tracking, ONE)
    assert len(looks) == 50 + FRAMES  # a finished one is not looked at again
    for out in (tmp_path / "out", tmp_path / "whole"):
        with pytest.raises(UserError, match="already holds another dataset"):
            import_videos(films / "films", out, settings(films, minutes=1), ONE)


def test_files_with_faults_are_named_and_the_others_go_on(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    film = (films / "films" / "cam2_a.mp4").read_bytes()
    folder = tmp_path / "films"
    write_video(folder / "cut.avi", pictures((RED, BLUE), FRAMES))
    whole = (folder / "cut.avi").read_bytes()
    (folder / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "half.mp4").write_bytes(film[: len(film) // 2])
    (folder / "whole.mp4").write_bytes(film)
    (folder / "notes.txt").write_text("not a video")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    boxes = write_mot(tmp_path / "boxes.txt", (RED, BLUE), FRAMES)
    for name in ("cut", "empty", "half", "whole", "sound"):
        (tmp_path / f"{name}.txt").write_text(boxes.read_text())
    import_videos(folder, tmp_path / "out", Tracking(boxes=tmp_path), ONE)
    said = capsys.readouterr().err.splitlines()
    for line in (
        f"{folder}: left out 1 files that do not end like videos",
        f"{folder / 'empty.mp4'}: cannot be opened as a video (it is empty)",
        f"{folder / 'half.mp4'}: cannot be opened as a video",
        f"{folder / 'sound.mp4'}: holds no moving pictures",
        f"{folder / 'cut.avi'}: ends after",
    ):
        assert sum(text.startswith(line) for text in said) == 1, (line, said)
    assert set(Records(tmp_path / "out").index["camera"]) == {0, 4}
    for name in ("cut.avi", "whole.mp4"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="no video could be read"):
        import_videos(folder, tmp_path / "none", Tracking(boxes=tmp_path), ONE)


@pytest.mark.parametrize(
    ("turned", "corner"), [((0, 1, -1, 0), 1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 3), ((-1, 0, 0, 1), 1)]
)
def test_turned_films_are_shown_upright(turned: tuple[int, ...], corner: int, tmp_path: Path) -> None:
    """A bright first corner goes to the next corners, clockwise from the upper left, or is mirrored."""
    picture = np.full((32, 64, 3), 20, np.uint8)
    picture[:16, :32] = 220
    frame = next(iter(Reading(write_video(tmp_path / "a.mp4", [picture] * 3, turned=turned))))
    height, width = frame.pixels.shape[:2]
    assert (height, width) == ((64, 32) if turned[0] == 0 else (32, 64))
    rows, columns = (
        ([height // 4] * 2 + [height * 3 // 4] * 2),
        [width // 4, width * 3 // 4, width * 3 // 4, width // 4],
    )
    assert int(frame.pixels[rows, columns].sum(1).argmax()) == corner


def test_frames_of_changing_rate_are_counted_and_timed(tmp_path: Path) -> None:
    times = [0, 1, 2, 30, 31, 100, 101, 102]
    path = write_video(tmp_path / "a.mp4", pictures((RED,), 8), times)
    frames = [(frame.number, round(10 * frame.seconds)) for frame in Reading(path)]
    assert frames == list(enumerate(times, 1))


def frames_with_damage(path: Path) -> Iterator[int]:
    reading = Reading(path)
    for frame in reading:
        yield frame.number
    yield -reading.damaged


def test_damage_in_the_middle_costs_only_what_it_hits(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", pictures((RED, BLUE), FRAMES))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    *numbers, damaged = frames_with_damage(path)
    assert damaged < 0 and numbers[:10] == list(range(1, 11)) and len(numbers) >= FRAMES - 15


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"camera_pattern": "kam([0-9]+)"}, "cam2_a.mp4: --camera-pattern 'kam"),
        ({"camera_pattern": "("}, "not a regular expression"),
        ({"every": 0}, "--every 0: must be at least 1"),
        ({"minutes": 0.0}, "--minutes 0.0: must be above 0"),
        ({"min_height": 70}, "no tracklets found; try a smaller --min-height"),
        ({"detector": Path("a.onnx")}, "--detector and --boxes: give one of them"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(
    films: Path, tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        import_videos(films / "films", tmp_path / "out", settings(films, **more), ONE)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()  # it can be tried again with others


def test_a_list_names_videos_from_where_it_stands(films: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{films / 'films' / 'cam7_b.mp4'}\n")
    import_videos(tmp_path / "list.txt", tmp_path / "out", settings(films), ONE)
    assert len(Records(tmp_path / "out")) == 2 * FRAMES
    (tmp_path / "list.txt").write_text("nowhere.mp4\n")
    with pytest.raises(UserError, match=r"list\.txt:1: names no file"):
        import_videos(tmp_path / "list.txt", tmp_path / "none", settings(films), ONE)


def test_what_is_left_out_is_said(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    short = Walker((30, 200, 30), 60, 0, first=3, last=7)
    low = Walker((200, 200, 30), 60, 0, size=(30, 16))
    film = write_video(tmp_path / "a.mp4", pictures((RED, short, low), FRAMES))
    boxes = write_mot(tmp_path / "a.txt", (RED, short, low), FRAMES)
    import_videos(film, tmp_path / "out", Tracking(boxes=boxes), ONE)
    said = capsys.readouterr().err
    assert f"{film}: left out {FRAMES} boxes of fewer than 48 rows of pixels (--min-height)" in said
    assert f"{film}: left out 1 tracklets of fewer than 10 images (--min-images), 5 images together" in said
    assert len(Records(tmp_path / "out")) == FRAMES


def test_names_and_boxes_go_with_their_images(films: Path, tmp_path: Path) -> None:
    """Into another order, and onto sheets."""
    import_videos(films / "films", tmp_path / "out", settings(films), ONE)
    assert main(["data", "repack", str(tmp_path / "out"), str(tmp_path / "new"), "--order", "shuffled"]) == 0
    old, new = Records(tmp_path / "out"), Records(tmp_path / "new")
    boxes = [np.load(records.folder / BOXES_FILE) for records in (old, new)]
    before, after = (
        {record.source: box for record, box in zip(records, rows, strict=True)}
        for records, rows in zip((old, new), boxes, strict=True)
    )
    assert before == after and boxes[0].tolist() != boxes[1].tolist()
    names = read_names(tmp_path / "new", "train")
    assert names[3] == (3, 1, "cam7_b.mp4@0s", "1") and called(names, "tracklet")[3] == "cam7_b.mp4@0s, 1"
    assert called(names, "video")[0] == "cam2_a.mp4@0s" and called(names, "camera") == {}
    rows = rows_of(np.asarray(new.index["tracklet"]), (3,), 1, 4)
    plain, named = (sheet_of(new, rows, each) for each in ({}, called(names, "tracklet")))
    assert named.height == plain.height + 16 and np.ptp(np.asarray(named)[2:18, 64:]) > 100
    assert list(problems(tmp_path / "new")) == []


@pytest.mark.parametrize("table", ["tracklet,video\n", "tracklet,video,video_name,tracklet_name\n1,2\n", "\0", ""])
def test_a_damaged_table_of_names_is_refused(table: str, tmp_path: Path) -> None:
    (tmp_path / names_file("train")).write_text(table)
    with pytest.raises(UserError, match="not a table of names") as caught:
        read_names(tmp_path, "train")
    assert "\n" not in str(caught.value)
