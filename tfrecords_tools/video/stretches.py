"""The tracklets of one video file, stretch by stretch; each stretch is kept once it is done."""

import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import cv2
import numpy as np

from cion_jax.config import Tracking
from cion_jax.data.boxes import DOUBLES
from cion_jax.data.files import exists, put, read
from cion_jax.terminal import Progress
from tfrecords_tools.video.boxes import iou, suppress
from tfrecords_tools.video.colours import colours_of
from tfrecords_tools.video.detectors import Detector, make_detector
from tfrecords_tools.video.frames import Frame, Reading, VideoError
from tfrecords_tools.video.links import link, rows_of
from tfrecords_tools.video.tracker import Tracker

_SAMPLE = 64  # frames of a stretch from which a detector may learn the background
_SAME_BOX = 0.5  # IoU from which two boxes of a frame show the same person, or one behind the other
_COUNTS = ("small", "doubled", "short", "short_images")
_WHOLE = 0.98  # a file that has a smaller share of the frames that its header promises was cut off


@dataclass(frozen=True)
class Task:
    """One video file to find tracklets in: all that a process is sent."""

    number: int
    path: Path
    boxes: Path | None
    tracking: Tracking
    threads: int
    parts: Path
    """The folder of what is done."""


@dataclass(frozen=True)
class Stretch:
    """What was found in a stretch of a video."""

    start: float
    """Seconds of the video before it."""
    rows: np.ndarray
    """`links.ROW`, by frame."""
    small: int
    """Boxes that were left out because they are not high enough."""
    doubled: int
    """Boxes that were left out because another tracklet has nearly the same one in that frame."""
    doubles: np.ndarray
    """DOUBLES: the tracklets that had such boxes."""
    short: int
    """Tracklets that were left out because they have too few images, and those images."""
    short_images: int


def track_video(task: Task, progress: Progress) -> None:
    """Find the tracklets of each stretch that is not done. How it ended is written last, also if nothing was read."""
    summary = _summary_path(task.parts, task.number)
    if exists(summary):
        return
    cv2.setNumThreads(task.threads)
    outcome: dict[str, object] = {"stretches": 0, "notes": [], "unreadable": False}
    reading = Reading(task.path)
    try:
        detector = make_detector(task.tracking, task.boxes, task.threads)
        ahead = enumerate(_stretches(Reading(task.path), task.tracking))
        for number, (start, frames) in enumerate(_stretches(reading, task.tracking)):
            kept = _stretch_path(task.parts, task.number, number)
            if not exists(kept):
                detector.begin(_sample(ahead, number, _sampling_step(reading, task.tracking)))
                stretch = _track(detector, frames, start, reading.rate, task.tracking, progress)
                put(kept, functools.partial(_save, stretch=stretch))
            for _ in frames:  # of a stretch that was done before
                progress(1)
            outcome["stretches"] = number + 1
        outcome["notes"] = [*detector.notes, *_damage(task.path, reading)]
    except VideoError as error:
        outcome |= {"notes": [str(error)], "unreadable": True}
    put(summary, lambda path: path.write_text(json.dumps(outcome)))


def fetch_outcome(parts: Path, number: int) -> tuple[bytes, list[bytes]]:
    """What is kept of a video that is done, as it was written: threads of Python 3.11 cannot read .npz at once."""
    summary = read(_summary_path(parts, number))
    stretches = range(json.loads(summary)["stretches"])
    return summary, [read(_stretch_path(parts, number, stretch)) for stretch in stretches]


def outcome_of(summary: bytes, kept: list[bytes]) -> tuple[list[Stretch], list[str], bool]:
    """The stretches of a video, what there is to say of it, and whether it could not be read at all."""
    outcome = json.loads(summary)
    stretches = []
    for data in kept:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            counts = (int(arrays[name]) for name in _COUNTS)
            found = {name: arrays[name] for name in ("rows", "doubles")} | dict(zip(_COUNTS, counts, strict=True))
            stretches.append(Stretch(float(arrays["start"]), **found))
    return stretches, outcome["notes"], outcome["unreadable"]


def _summary_path(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.json"


def _stretch_path(parts: Path, number: int, stretch: int) -> Path:
    return parts / f"{number:06d}-{stretch:06d}.npz"


def _save(path: Path, stretch: Stretch) -> None:
    with path.open("wb") as file:
        np.savez(file, **vars(stretch))


def _stretches(reading: Reading, tracking: Tracking) -> Iterator[tuple[float, Iterator[Frame]]]:
    """When each stretch begins, in seconds, and its frames; times that run backwards begin none."""
    length = 60 * tracking.minutes
    latest = 0.0

    def begin(frame: Frame) -> float:
        nonlocal latest
        latest = max(latest, frame.seconds // length * length)
        return latest

    return groupby(reading, begin)


def _sampling_step(reading: Reading, tracking: Tracking) -> int:
    longest = round(60 * tracking.minutes * reading.rate)
    return max(min(reading.promised or longest, longest) // _SAMPLE, 1)


def _sample(ahead: Iterator[tuple[int, tuple[float, Iterator[Frame]]]], number: int, step: int) -> Iterator[Frame]:
    """Every so many frames of a stretch, one at a time, from a reader that is not beyond it."""
    for stretch, (_, frames) in ahead:
        if stretch == number:
            yield from islice(frames, 0, None, step)
            return


def _track(
    detector: Detector, frames: Iterator[Frame], start: float, rate: float, tracking: Tracking, progress: Progress
) -> Stretch:
    """Find and follow people in a stretch."""
    tracker = Tracker(rate / tracking.every)
    looked_at = []
    height = width = 0
    for frame in frames:
        if (frame.number - 1) % tracking.every == 0:
            boxes, scores = detector(frame)
            tracker.update(frame.number, boxes, scores, colours_of(frame.pixels, boxes))
            looked_at.append((frame.number, frame.pts, frame.seconds))
            height, width = frame.pixels.shape[:2]
        progress(1)
    table = np.array(looked_at, [("number", "<i8"), ("pts", "<i8"), ("seconds", "<f8")])
    rows = rows_of(link(tracker.tracks(), rate, tracking.bridge), table["number"], rate)
    shown = table[np.searchsorted(table["number"], rows["frame"])]
    rows["pts"], rows["seconds"] = shown["pts"], shown["seconds"]
    rows["box"] = np.clip(np.rint(rows["box"]), 0, [width, height, width, height])
    return _filtered(rows, start, tracking)


def _filtered(rows: np.ndarray, start: float, tracking: Tracking) -> Stretch:
    """The rows that are large enough and of nobody else, of tracklets that have enough of them."""
    left, top, right, bottom = rows["box"].T
    is_large = (bottom - top >= max(tracking.min_height, 1)) & (right > left)
    small = int(np.count_nonzero(~is_large))
    rows = rows[is_large]
    is_own, doubles = _one_each(rows)
    doubled = int(np.count_nonzero(~is_own))
    rows = rows[is_own]
    _, tracklet, counts = np.unique(rows["tracklet"], return_inverse=True, return_counts=True)
    is_long = counts >= tracking.min_images
    rows = rows[is_long[tracklet]]
    short = int(np.count_nonzero(~is_long))
    return Stretch(start, rows, small, doubled, doubles, short, int(counts[~is_long].sum()))


def _one_each(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay where two tracklets have nearly the same box, that of which the detector is surer; and DOUBLES.

    Either a person is followed twice, and would be forbidden to be one for sharing a frame with herself; or one stands
    before another, and an image of both teaches nothing about who is who.
    """
    kept = np.zeros(len(rows), bool)
    pairs = []
    for one in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows["frame"])) + 1):
        best = one[suppress(rows["box"][one], rows["score"][one], _SAME_BOX)]
        kept[best] = True
        others = one[~kept[one]]
        over = best[iou(rows["box"][others], rows["box"][best]).argmax(axis=1)] if len(others) else others
        pairs.append(np.sort(rows["tracklet"][np.stack([over, others], axis=1)], axis=1))
    names, frames = np.unique(np.concatenate(pairs), axis=0, return_counts=True)
    doubles = np.empty(len(names), DOUBLES)
    doubles["one"], doubles["other"] = names.T
    doubles["frames"] = frames
    seen = {name: rows["frame"][rows["tracklet"] == name] for name in np.unique(names)}
    doubles["shared"] = [len(np.intersect1d(seen[one], seen[other])) for one, other in names.tolist()]
    return kept, doubles


def _damage(path: Path, reading: Reading) -> Iterator[str]:
    """What was wrong with a file that was read."""
    if reading.damaged:
        yield f"{path}: left out {reading.damaged:,} damaged packets or frames"
    if reading.frames < _WHOLE * reading.promised:
        yield f"{path}: ends after {reading.frames:,} of the {reading.promised:,} frames that its header promises"
