"""What is no video costs a line, and a kill costs nothing: the others go on, to the same bytes."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cion_jax.config import Tracking, Writing
from cion_jax.data.records import Records
from sources import contents
from tfrecords_tools.video.frames import Reading, frames_from
from tfrecords_tools.video.importing import import_videos
from videos import BLUE, RED, pictures, write_mot, write_video

FRAMES = 40

#: Imports ten times in a process that is killed when it is about to open a file for writing, or to give one its name;
#: and then once in peace. All are children of one that has imported what they need.
KILLS = """
import os, random, signal, sys
from pathlib import Path
from cion_jax.config import Tracking, Writing
from tfrecords_tools.video.importing import import_videos

films, boxes, out = map(Path, sys.argv[1:])

def run():
    import_videos(films, out, Tracking(boxes=boxes, minutes=1 / 60), Writing(images_per_shard=8, workers=1))

def die_at(event, arguments):
    global left
    if event == "os.rename" or event == "open" and "w" in (arguments[1] or ""):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

moments = random.Random(0)
for _ in range(10):
    left = moments.randint(2, 18)
    child = os.fork()
    if not child:
        sys.addaudithook(die_at)
        run()
        sys.exit()
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    print("killed with", len(list(out.rglob("*.npz"))), "stretches and", len(list(out.glob("*.tfrecord*"))), "shards")
run()
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films and the boxes of both. Not to be written to."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "boxes").mkdir()
    for name in ("a", "b"):
        write_video(folder / "films" / f"{name}.mp4", pictures((RED, BLUE), FRAMES))
        write_mot(folder / "boxes" / f"{name}.txt", (RED, BLUE), FRAMES)
    return folder


def test_ten_kills_change_nothing(films: Path, tmp_path: Path) -> None:
    sources = [str(films / "films"), str(films / "boxes")]
    command = [sys.executable, "-c", KILLS, *sources, str(tmp_path / "killed")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    stretches, shards = zip(*((int(line.split()[2]), int(line.split()[5])) for line in said), strict=True)
    assert len(said) == 10 and stretches[0] < 8 and stretches[-1] == 8 and 0 < shards[6] < 20
    tracking = Tracking(boxes=films / "boxes", minutes=1 / 60)
    import_videos(films / "films", tmp_path / "whole", tracking, Writing(images_per_shard=8, workers=1))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_is_no_video_costs_a_line(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Pipes and devices, of which a reader would see no end, and lists by which FFmpeg would open other files."""
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "whole.mp4").symlink_to(films / "films" / "a.mp4")
    unnamed = os.fsencode(folder) + b"/n\xff.mp4"
    Path(os.fsdecode(unnamed)).write_bytes(b"")
    (tmp_path / "boxes").mkdir()
    for name in ("list", "dangling", "device", "pipe", "whole"):
        (tmp_path / "boxes" / f"{name}.txt").symlink_to(films / "boxes" / "a.txt")
    import_videos(folder, tmp_path / "out", Tracking(boxes=tmp_path / "boxes"), Writing(workers=1))
    assert capsys.readouterr().err.splitlines() == [
        f"{folder}: left out 'n\\udcff.mp4', whose name is not UTF-8 text; rename it",
        f"{folder / 'dangling.mp4'}: not there; leave it out",
        f"{folder / 'device.mp4'}: a device, not a file; leave it out",
        f"{folder / 'list.mp4'}: is a list of other files, not a video; import those, or leave it out",
        f"{folder / 'pipe.mp4'}: a pipe, not a file; leave it out",
    ]
    assert len(Records(tmp_path / "out")) == 2 * FRAMES


def test_every_kind_of_file_at_once(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Films whose frames come irregularly or are stored turned go in with the others, and nothing is said of them."""
    frames = pictures((RED, BLUE), FRAMES)
    folder = tmp_path / "films"
    irregular = [frame if frame < 20 else 50 + 3 * frame for frame in range(FRAMES)]
    write_video(folder / "irregular.mp4", frames, irregular)
    turned = [frame.transpose(1, 0, 2)[:, ::-1].copy() for frame in frames]
    write_video(folder / "turned.mp4", turned, turned=(0, -1, 1, 0))
    for name in ("irregular", "turned"):
        write_mot(tmp_path / f"{name}.txt", (RED, BLUE), FRAMES)
    import_videos(folder, tmp_path / "out", Tracking(boxes=tmp_path), Writing(workers=1))
    assert capsys.readouterr().err == ""
    records = Records(tmp_path / "out")
    assert len(records) == 4 * FRAMES and len(set(records.index["tracklet"])) == 4
    for number in range(len(records)):
        middle = records.pixels(number)[20:40, 8:16].reshape(-1, 3).mean(0)
        assert abs(middle[0] - middle[2]) > 100, f"image {number} shows no walker"


@pytest.mark.parametrize("turned", [(), (0, 1, -1, 0)])
def test_frames_leave_memory_as_soon_as_they_are_done_with(turned: tuple[int, ...], tmp_path: Path) -> None:
    """Not only when Python looks for circles of references, which is seldom: a frame has megabytes."""
    film = write_video(tmp_path / "a.mp4", pictures((RED,), FRAMES), turned=turned)
    for frames in (lambda: Reading(film), lambda: frames_from(film, 0)):
        gc.collect()
        gc.disable()
        try:
            assert sum(frame.pixels.shape[2] for frame in frames()) == 3 * FRAMES
            assert gc.collect() < FRAMES
        finally:
            gc.enable()
