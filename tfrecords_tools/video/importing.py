"""From video files to a dataset: people are found and followed, file by file, and then cut out into records.

What is found stands in OUT/.unfinished/video until the dataset is finished: a file for each stretch that is done and
one for each video. A run that was killed goes on with the stretch that it was in.
"""

import functools
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from cion_jax.config import Tracking, Writing
from cion_jax.data import beam, dataset
from cion_jax.data.boxes import BOXES, BOXES_FILE, DOUBLES, DOUBLES_FILE
from cion_jax.data.files import claim, make_folder, put, read, remove_folder, sole_writer
from cion_jax.data.workers import spread
from cion_jax.data.writer import Beside, write_dataset
from cion_jax.errors import UserError
from cion_jax.npz import save_npy
from cion_jax.terminal import progress_bar
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.numbering import dense_ranks, label_rows
from tfrecords_tools.notices import say, say_left_out
from tfrecords_tools.tracklet_names import Names, names_file, names_of, write_names
from tfrecords_tools.video.crops import VideoCrops
from tfrecords_tools.video.files import at_once, cameras_of, find_videos, known_again_by, place_of
from tfrecords_tools.video.frames import expected_frames
from tfrecords_tools.video.given import find_boxes
from tfrecords_tools.video.stretches import Stretch, Task, fetch_outcome, outcome_of, track_video


def import_videos(source: Path, out: Path, tracking: Tracking, writing: Writing) -> dict[str, dataset.Split]:
    """Write the tracklets in videos as the split train of a dataset, or finish what a killed run began."""
    _check(tracking)
    root, names, others = find_videos(source)
    cameras = cameras_of(names, tracking.camera_pattern)
    say_left_out(source, others, "files that do not end like videos")
    digest = _digest(root, names, tracking)
    workers = min(writing.workers or len(os.sched_getaffinity(0)), len(names))
    unfinished = out / ".unfinished"
    threads = 1 if writing.beam_runner else max(len(os.sched_getaffinity(0)) // workers, 1)
    tasks = _tasks(root, names, tracking, threads, unfinished / "video")
    if _claim(out, digest, writing):
        remove_folder(unfinished)
        return dataset.read_card(out)[0]
    with sole_writer(out):
        stretches = _found(tasks, source, unfinished, workers, writing)
        crops = _crops(root, names, cameras, stretches, digest)
        beside: Beside = {
            BOXES_FILE: functools.partial(save_npy, array=_boxes(crops)),
            DOUBLES_FILE: functools.partial(save_npy, array=_doubles(crops, stretches)),
            names_file("train"): write_names(_names(crops, stretches)),
        }
        return write_dataset(out, {"train": crops}, writing, beside)


def _found(tasks: list[Task], source: Path, unfinished: Path, workers: int, writing: Writing) -> list[list[Stretch]]:
    """The stretches of each video; a folder in which nothing is found is taken away."""
    make_folder(tasks[0].parts)
    if writing.beam_runner:
        beam.spread(track_video, iter(tasks), unfinished / "videos", writing)
    else:
        _track(tasks, workers)
    try:
        return _outcomes(tasks, source)
    except UserError:  # there is nothing to go on with, and the same folder may be tried with other settings
        remove_folder(unfinished)
        with suppress(OSError):
            Path(unfinished.parent).rmdir()
        raise


def _check(tracking: Tracking) -> None:
    for name, least in (("every", 1), ("min_height", 16), ("min_images", 1)):
        if getattr(tracking, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(tracking, name)}: must be at least {least}")
    if not tracking.minutes > 0:
        raise UserError(f"--minutes {tracking.minutes}: must be above 0")
    if not tracking.bridge >= 0:
        raise UserError(f"--bridge {tracking.bridge}: must not be below 0")
    if tracking.detector is not None and tracking.boxes is not None:
        raise UserError("--detector and --boxes: give one of them, to find people or to take what was found")


def _digest(root: Path, names: list[str], tracking: Tracking) -> str:
    """Of all that the records depend on."""
    settings = {name: str(value) for name, value in vars(tracking).items() if name not in ("detector", "boxes")}
    given = tracking.detector or tracking.boxes
    if given is not None and not given.exists():
        raise UserError(f"{given}: no such file; an ONNX network or boxes were expected here")
    files = sorted(path for path in ([given, *given.rglob("*")] if given else []) if path.is_file())
    known = at_once(lambda name: known_again_by(place_of(root, name)), names)
    videos = [(name, *size_and_digest) for name, size_and_digest in zip(names, known, strict=True)]
    return dataset.digest(settings, videos, [known_again_by(file) for file in files])


def _claim(out: Path, digest: str, writing: Writing) -> bool:
    """Make the folder ours; True if this very dataset stands there already, finished."""
    card = out / dataset.CARD
    begun = out / ".unfinished" / "video.json"

    def check(note: Path) -> None:
        advice = "choose another folder or delete this one"
        if note == begun and read(note) != digest.encode():
            raise UserError(f"{out}: holds the beginning of another dataset; {advice}")
        if note == card:
            plan = dataset.read_card(out)[1]
            fingerprints = [source["fingerprint"] for source in plan["sources"].values()]
            if (fingerprints, plan["images_per_shard"]) != ([digest], writing.images_per_shard):
                raise UserError(f"{out}: already holds another dataset; {advice}")

    note = claim(out, (card, begun), check)
    if note is None:
        put(begun, lambda path: path.write_text(digest))
    return note == card


def _tasks(root: Path, names: list[str], tracking: Tracking, threads: int, parts: Path) -> list[Task]:
    """One for each video; what can be wrong with the boxes of any is found before the first is begun."""
    tasks = []
    for number, name in enumerate(names):
        path = place_of(root, name)
        boxes = None if tracking.boxes is None else find_boxes(tracking.boxes, path, len(names))
        tasks.append(Task(number, path, boxes, tracking, threads, parts))
    return tasks


def _track(tasks: list[Task], workers: int) -> None:
    total = sum(at_once(expected_frames, [task.path for task in tasks]))
    with progress_bar("looking at frames", total) as advance:
        spread(track_video, iter(tasks), workers, advance)


def _outcomes(tasks: list[Task], source: Path) -> list[list[Stretch]]:
    """The stretches of each video in which there are tracklets; what was left out and what went wrong is said."""
    fetched = at_once(lambda task: fetch_outcome(task.parts, task.number), tasks)
    outcomes = [outcome_of(*kept) for kept in fetched]
    for _, notes, _ in outcomes:
        for note in notes:
            say(note)
    if all(unreadable for _, _, unreadable in outcomes):
        raise UserError(f"{source}: no video could be read; see the lines above")
    stretches = [stretch for result, _, _ in outcomes for stretch in result]
    tracking = tasks[0].tracking
    counted = ("small", "doubled", "short", "short_images")
    small, doubled, short, images = (sum(getattr(stretch, name) for stretch in stretches) for name in counted)
    say_left_out(source, small, f"boxes of fewer than {tracking.min_height} rows of pixels (--min-height)")
    say_left_out(source, doubled, "boxes in frames where another tracklet has nearly the same box")
    few = f"fewer than {tracking.min_images} images (--min-images)"
    say_left_out(source, short, f"tracklets of {few}, {images:,} images together")
    for task, (result, _, unreadable) in zip(tasks, outcomes, strict=True):
        if not unreadable and not any(len(stretch.rows) for stretch in result):
            say(f"{task.path}: no tracklets found in it")
    if not any(len(stretch.rows) for stretch in stretches):
        raise UserError(
            f"{source}: no tracklets found; try a smaller --min-height or --min-images, or another --detector"
        )
    return [[stretch for stretch in result if len(stretch.rows)] for result, _, _ in outcomes]


def _crops(root: Path, names: list[str], cameras: np.ndarray, videos: list[list[Stretch]], digest: str) -> VideoCrops:
    """All boxes as a source; stretches and tracklets are numbered as they come."""
    stretches = [stretch for result in videos for stretch in result]
    rows = np.concatenate([stretch.rows for stretch in stretches])
    sizes = [len(stretch.rows) for stretch in stretches]
    video = np.repeat(np.arange(len(stretches)), sizes)
    file = np.repeat(np.repeat(np.arange(len(videos)), [len(result) for result in videos]), sizes)
    labels = label_rows(video, dense_ranks(video, rows["tracklet"]), rows["frame"], cameras[file])
    return VideoCrops(tuple(place_of(root, name) for name in names), tuple(names), file, rows, labels, digest)


def _boxes(crops: VideoCrops) -> np.ndarray:
    boxes = np.empty(len(crops), BOXES)
    left, top, right, bottom = crops.rows["box"].T
    sides = (left, top, right - left, bottom - top)
    for name, values in zip(BOXES.names or (), (*sides, crops.rows["score"], crops.rows["seconds"]), strict=True):
        boxes[name] = values
    return boxes


def _doubles(crops: VideoCrops, videos: list[list[Stretch]]) -> np.ndarray:
    """The tracklets that had nearly the same boxes, by their numbers in the dataset, as far as both are in it."""
    labels = crops.labels
    pairs = zip(labels["video"].tolist(), crops.rows["tracklet"].tolist(), strict=True)
    number = dict(zip(pairs, labels["tracklet"].tolist(), strict=True))
    stretches = [stretch for result in videos for stretch in result]
    doubles = []
    for video, stretch in enumerate(stretches):
        for one, other, *frames in stretch.doubles.tolist():
            if (video, one) in number and (video, other) in number:
                doubles.append((number[video, one], number[video, other], *frames))
    return np.array(doubles, DOUBLES)


def _names(crops: VideoCrops, videos: list[list[Stretch]]) -> Names:
    """What tracklets are called; a video by its file and the second at which its stretch begins."""
    starts = [stretch.start for result in videos for stretch in result]
    files = [crops.names[number] for number, result in enumerate(videos) for _ in result]
    called = np.array([f"{file}@{start:g}s" for file, start in zip(files, starts, strict=True)], TEXT)
    return names_of(crops.labels, called[crops.labels["video"]], crops.rows["tracklet"])
