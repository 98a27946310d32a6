"""Boxes that were found elsewhere, from the text and JSON files in which detectors leave them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.importers.names import last_numbers

_COCO_PERSON = 1
_YOLO_PERSON = 0


@dataclass(frozen=True)
class GivenBoxes:
    """The boxes of a video, by frame."""

    frames: np.ndarray
    """(N,) in ascending order."""
    boxes: np.ndarray
    """(N, 4) left, top, right, bottom; in pixels, or as shares of the frame's width and height."""
    scores: np.ndarray
    shares: bool
    notes: tuple[str, ...]
    """What was left out or taken otherwise than it stands there."""

    def of_frame(self, number: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Boxes in pixels, and scores."""
        rows = slice(*np.searchsorted(self.frames, [number, number + 1]))
        size = [width, height, width, height] if self.shares else 1
        return self.boxes[rows] * size, self.scores[rows]


def find_boxes(boxes: Path, video: Path, videos: int) -> Path:
    """The file or folder of a video's boxes: itself for a single video, or the one of the video's name in a folder."""
    named = [boxes / f"{video.stem}{ending}" for ending in (".txt", ".json", "")]
    for path in named:
        if path.exists():
            return path
    if videos == 1 and boxes.exists():
        return boxes
    raise UserError(f"{boxes}: has no boxes for {video.name}; name them {', '.join(path.name for path in named)}")


def read_boxes(path: Path) -> GivenBoxes:
    """Boxes from MOT text, COCO JSON or a folder of YOLO text files."""
    if path.is_dir():
        return _gather(_yolo_rows(path), True, path)
    if path.suffix.lower() == ".json":
        return _gather(_coco_rows(path), False, path)
    return _gather(_mot_rows(path), False, path)


#: Frame, left, top, width, height, score, and whether it is a person.
_Row = tuple[int, float, float, float, float, float, bool]


def _gather(rows: Iterator[_Row], shares: bool, path: Path) -> GivenBoxes:
    frames, *sides, scores, person = columns(rows, "<i4", *["<f8"] * 5, "?")
    left, top, width, height = sides
    notes = []
    usable = person & (width > 0) & (height > 0)
    if others := int(np.count_nonzero(~person)):
        notes.append(f"{path}: left out {others:,} boxes of other classes than person")
    if empty := int(np.count_nonzero(person & ~usable)):
        notes.append(f"{path}: left out {empty:,} boxes without width or height")
    if not usable.any():
        raise UserError(f"{path}: holds no box of a person; give the boxes of this video")
    if (scores[usable] < 0).any() or (scores[usable] > 1).any():
        notes.append(f"{path}: scores are not between 0 and 1; every box counts as sure")
        scores = np.ones(len(scores))
    order = np.flatnonzero(usable)
    order = order[np.argsort(frames[order], kind="stable")]
    boxes = np.stack([left, top, left + width, top + height], axis=1)[order]
    return GivenBoxes(frames[order], boxes, scores[order], shares, tuple(notes))


def _mot_rows(path: Path) -> Iterator[_Row]:
    """Lines frame,id,left,top,width,height,conf,...; the first pixel is 1 there. An id is not used."""
    for place, line in placed_lines(path):
        values = _numbers(line.split(","))
        if len(values) < 7 or values[0] % 1:
            raise UserError(f"{place}: {line[:80]!r} is not frame,id,left,top,width,height,conf")
        frame, _, left, top, width, height, score = values[:7]
        yield int(frame), left - 1, top - 1, width, height, score, True


def _yolo_rows(folder: Path) -> Iterator[_Row]:
    """Files NAME_000001.txt of lines class x y width height [score], as shares of the frame; x, y is the centre."""
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise UserError(f"{folder}: holds no *.txt; a YOLO text file for each frame was expected")
    numbers = last_numbers(np.array([path.name for path in paths], TEXT))
    for path, frame in zip(paths, numbers.tolist(), strict=True):
        if frame < 0:
            raise UserError(f"{path}: its name has no frame number; name it like frame_000001.txt")
        for place, line in placed_lines(path):
            values = _numbers(line.split())
            if len(values) not in (5, 6):
                raise UserError(f"{place}: {line[:80]!r} is not class x y width height [score]")
            kind, x, y, width, height, score = (*values, 1.0)[:6]
            yield frame, x - width / 2, y - height / 2, width, height, score, kind == _YOLO_PERSON


def _coco_rows(path: Path) -> Iterator[_Row]:
    """Annotations [{image_id, bbox, score}] of images whose file names end with the frame number."""
    try:
        content = json.loads(path.read_bytes())
        frame_of = {image["id"]: _frame(str(image["file_name"])) for image in content["images"]}
        for entry in content["annotations"]:
            left, top, width, height = map(float, entry["bbox"])
            person = entry.get("category_id", _COCO_PERSON) == _COCO_PERSON
            yield frame_of[entry["image_id"]], left, top, width, height, float(entry.get("score", 1)), person
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; a COCO JSON file was expected here") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is not COCO JSON with images, annotations and frame numbers in file names "
                        f"({error!r})") from None  # fmt: skip


def _frame(name: str) -> int:
    number = int(last_numbers(np.array([name], TEXT))[0])
    if number < 0:
        raise ValueError(f"{name[:80]} has no frame number")
    return number


def _numbers(texts: list[str]) -> list[float]:
    """The numbers, or nothing where one is none."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return []
    return values if all(abs(value) < 1e9 for value in values) else []  # nor is nan
