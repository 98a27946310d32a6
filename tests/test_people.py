"""From drawn films to a page of people: who is followed twice, what steps do, who has a row, and with which weights."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from cion_jax import people
from cion_jax.cli import main
from cion_jax.config import Denoising, Tracking, Writing
from cion_jax.data.boxes import BOXES, BOXES_FILE, DOUBLES, DOUBLES_FILE, joined_tracklets, read_boxes
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.denoise.denoise import denoise
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.errors import UserError
from cion_jax.models.zoo import ZOO
from cion_jax.people import STEPS, Step, Wanted, do_steps, steps
from cion_jax.recipes import RECIPES
from cion_jax.report.people import people_page
from cion_jax.run.pretraining import pretraining
from cion_jax.weights.file import load
from experiments.benchmarks.video import TRACKED, people_shown
from pages import Page
from tfrecords_tools.tracklet_names import names_file, write_names
from tfrecords_tools.video.boxes import iou
from tfrecords_tools.video.importing import import_videos
from tiny import FAMILY, SETTINGS
from tiny_pretrain import stand_in
from videos import BLUE, RED, pictures, write_mot, write_video

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of killed processes")
pytestmark = pytest.mark.xdist_group("people")
FRAMES = 90
TINY = replace(SETTINGS, epochs=2, instances=(2,), stages=(0,), relabel=(1,))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who pass each other, and their boxes. Not to be written to."""
    folder = tmp_path_factory.mktemp("film")
    write_video(folder / "film.mp4", pictures((RED, BLUE), FRAMES))
    write_mot(folder / "boxes.txt", (RED, BLUE), FRAMES)
    return folder


@pytest.fixture(scope="module")
def out(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `cion people` made of it. Not to be written to."""
    out = tmp_path_factory.mktemp("people") / "out"
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        patch.setitem(RECIPES, "people", TINY)
        patch.setattr(people, "run_command", main)
        assert main(["people", str(film / "film.mp4"), str(out), "--boxes", str(film / "boxes.txt")]) == 0
        yield out


# Somebody who is followed twice.


def own_doubles(dataset: Path, rows: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    np.save(dataset / DOUBLES_FILE, np.array(rows, DOUBLES))
    return joined_tracklets(Records(dataset))


def test_tracklets_of_somebody_who_is_followed_twice_are_one(own_dataset: Path) -> None:
    tracklet = np.array(Records(own_dataset).index["tracklet"])
    assert (joined_tracklets(Records(own_dataset)) == tracklet).all()  # where nothing is known
    joined = own_doubles(own_dataset, [(3, 5, 10, 10), (5, 8, 4, 5), (1, 2, 2, 2), (0, 7, 10, 100)])
    assert (joined == np.where(np.isin(tracklet, (5, 8)), 3, tracklet)).all()
    with pytest.raises(UserError, match="names tracklets that the index does not have"):
        own_doubles(own_dataset, [(0, 10**6, 10, 10)])


def test_of_boxes_on_one_place_one_stays(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_videos(film / "film.mp4", tmp_path / "out", Tracking(boxes=film / "boxes.txt"), Writing(workers=1))
    records = Records(tmp_path / "out")
    boxes = read_boxes(records)
    assert boxes is not None
    assert "boxes in frames where another tracklet has nearly the same box" in capsys.readouterr().err
    sides = np.stack([boxes[side] for side in ("left", "top", "width", "height")], axis=1).astype(float)
    sides[:, 2:] += sides[:, :2]
    frames = records.index["frame"]
    both = [np.flatnonzero(frames == frame) for frame in range(1, FRAMES + 1)]
    shared = [iou(sides[rows[:1]], sides[rows[1:]])[0, 0] for rows in both if len(rows) == 2]
    assert 40 < len(shared) < FRAMES and max(shared) < 0.5 and {*map(len, both)} == {1, 2}
    doubles = np.load(tmp_path / "out" / DOUBLES_FILE)
    assert doubles.tolist() == [(0, 1, FRAMES - len(shared), FRAMES)]
    assert len(np.unique(joined_tracklets(records))) == 2  # they only pass each other


# The steps.


def test_it_goes_all_the_way(out: Path, film: Path) -> None:
    text = (out / "people.html").read_text()
    page = Page(text)
    assert page.texts_with("^2 people in 1 video") and 16 <= len(page.pictures) <= 22
    assert page.texts_with(r"^film.mp4 0:00\N{EN DASH}0:0\d")
    assert read_labelling(out / "labels.npz", None, None).max() == 1
    assert (out / "index").is_dir() and len(json.loads((out / STEPS).read_text())) == 5


def test_what_is_done_is_not_done_again(
    out: Path, film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "run_command", lambda words: pytest.fail(f"ran {words}"))
    assert main(["people", str(film / "film.mp4"), str(out), "--boxes", str(film / "boxes.txt")]) == 0
    assert capsys.readouterr().out.count("done before") == 5


def test_a_step_that_ends_early_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def planned(middle: str = "b") -> Iterator[Step]:
        yield from (Step("first", ["a"]), Step("second", [middle]), Step("third", ["c d"]))

    ran: list[str] = []

    def run(words: Sequence[str]) -> int:
        ran.extend(words)
        return 143 if ran == ["a", "b"] else 0

    assert do_steps(tmp_path, planned(), run) == 143
    assert "step 2 ended with code 143" in capsys.readouterr().err
    assert do_steps(tmp_path, planned(), run) == 0 and ran == ["a", "b", "b", "c d"]
    assert "cion 'c d'" in capsys.readouterr().out
    assert do_steps(tmp_path, planned("other"), run) == 0 and ran[4:] == ["other", "c d"]  # what follows is made of it


def test_commands_are_those_that_a_user_would_give(out: Path, film: Path, tmp_path: Path) -> None:
    wanted = Wanted((film / "film.mp4",), out, Tracking(every=2, min_height=60), Path("w.safetensors"), "tiny", True, 3)
    lines = [" ".join(step.words) for step in steps(wanted, lambda: True)]
    assert lines[0] == f"data import video {film}/film.mp4 {out}/data --every 2 --min-height 60"
    options = "--epoch-steps 30 --epochs 3 --weights w.safetensors --backbone tiny"
    assert lines[1] == f"pretrain people {out}/data {out}/run {options}"
    assert "pretrain small" in " ".join([*steps(wanted, lambda: False)][1].words)
    asked = replace(wanted, train=False, videos=(film / "film.mp4", film / "boxes.txt"), out=tmp_path)
    lines = [" ".join(step.words) for step in steps(asked, lambda: True)]
    assert len(lines) == 4 and lines[1].startswith("embed w.safetensors")
    names = (tmp_path / "videos.txt").read_text().split()
    assert [(tmp_path / name).resolve() for name in names] == [film / "film.mp4", film / "boxes.txt"]


def test_mistakes_are_one_line(tmp_path: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["here"], "name one video at least, and the folder"),
        (["nowhere.mp4", "out"], "nowhere.mp4: no such file"),
        ([str(film / "film.mp4"), "out", "--no-train"], "--no-train: needs the weights"),
        ([str(film), str(film / "film.mp4"), "out"], "a folder among several videos"),
        ([str(film), "out", "--epochs", "1"], "--epochs 1: "),
    ):
        assert main(["people", *words]) == 1
        message = capsys.readouterr().err
        assert message.startswith("cion: ") and says in message and message.count("\n") == 1
    assert not Path("out").exists()


@linux
def test_a_step_ends_with_the_one_who_began_it() -> None:
    """The child of a process that is killed is killed too; one whose parent has gone before begins nothing."""
    begin = "import os, time; from cion_jax.people import end_with; end_with(os.getppid())"
    sleeper = f"{begin}; print('begun', flush=True); time.sleep(20); print('survived')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.kill()
        assert process.stdout.read() == ""  # the pipe ends once nobody is left who could write
    late = subprocess.run([sys.executable, "-c", "from cion_jax.people import end_with; end_with(1)"])
    assert late.returncode == 1


# The page.


def test_rows_are_people_the_best_first_the_doubtful_last(own_dataset: Path) -> None:
    records = Records(own_dataset)
    count = len(records)
    person = np.where(np.arange(count) < 120, 0, np.where(np.arange(count) < 190, 1, 2))
    tracklet = person.copy()
    random = np.random.default_rng(0)
    rows = np.eye(8)[person] + 0.05 * random.standard_normal((count, 8))
    rows[7] = np.eye(8)[6]
    boxes = np.zeros(count, BOXES)
    boxes["seconds"] = np.arange(count) / 10 + 60 * (np.arange(count) >= 60)  # the first is away for a minute
    np.save(own_dataset / BOXES_FILE, boxes)
    film = [(number, 0, "film.mp4@0s", "") for number in np.unique(records.index["tracklet"]).tolist()]
    write_names(film)(own_dataset / names_file("train"))
    tracked = TrackedFeatures(rows, np.zeros(count, int), tracklet, np.arange(count))
    denoised = denoise(*tracked, Denoising(sigma=0.3, tau=0.0, whiten="none", video_mean=False))
    page = Page(people_page(tracked, denoised, records))
    assert page.texts_with("^2 people in .*, and 1 doubtful at the end")
    headings = [text[0] for text in page.texts_with("^Person .*|^Doubtful: ")]
    assert headings == ["Person 0", "Person 1", "Doubtful: ", "Person 2"]
    assert page.texts_with(r"^film.mp4 0:00\N{EN DASH}0:05, 1:06\N{EN DASH}1:11") and page.texts_with("and 1 left out")
    shown = [picture["alt"] for picture in page.pictures if "person 0" in picture["alt"]]
    assert shown[-1].startswith("perhaps person 0") and shown[-1].endswith("at 0:00, left out")
    assert sum("perhaps" in says for says in shown) == 1


# Given weights.


def test_training_begins_with_given_weights(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "tiny", FAMILY)
    given = load(out / "run" / "teacher.safetensors")
    method = pretraining(replace(TINY, weights=out / "run" / "teacher.safetensors"))
    state = method.init(jax.random.key(3), method.start)
    for network in (state.student, state.teacher):
        jax.tree.map(np.testing.assert_array_equal, network["backbone"], given.variables["params"])
    with pytest.raises(UserError, match="weights of tiny; give --backbone tiny"):
        pretraining(replace(TINY, backbone="resnet10_half_ibn", weights=out / "run" / "teacher.safetensors"))


# The benchmark.


def test_an_image_shows_whom_it_overlaps() -> None:
    truth = np.array([(1, 4, (0, 0, 10, 20)), (1, 5, (6, 0, 16, 20)), (2, 4, (0, 0, 10, 20))], TRACKED)
    boxes = [(2, (50, 0, 60, 20)), (1, (1, 0, 11, 20)), (1, (2, 0, 12, 20)), (2, (0, 1, 10, 21))]
    found = np.array([(frame, 0, box) for frame, box in boxes], TRACKED)
    assert people_shown(truth, found).tolist() == [-1, 4, -1, 4]
