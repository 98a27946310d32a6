"""Tracked people in the frames of videos, as MOTChallenge stores them."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT, Crops, inspect
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.importers.listing import list_images, list_names
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.notices import say_left_out
from tfrecords_tools.tracklet_names import names_of

_PEDESTRIAN = 1
_FRAMES = "img1"


def mot(
    source: Path, *, boxes: str = "gt/gt.txt", min_visibility: float = 0.25, min_height: int = 48
) -> dict[str, Source]:
    """MOTChallenge: SEQUENCE/img1/000001.jpg and boxes with track ids in SEQUENCE/gt/gt.txt or another text file.

    All become the split train. Lines are frame,id,left,top,width,height,conf[,class,visibility]. Boxes with conf 0 and
    of other classes than pedestrian are left out; the others are cut out of the frames, as far as they lie inside. A
    video is a sequence, a tracklet is an id in it.

    Args:
        source: One sequence, or a folder of sequences.
        boxes: Where each sequence has its boxes; * stands for any name, as in track/*.txt.
        min_visibility: Boxes of which a smaller share is visible are left out, where the file tells.
        min_height: Boxes that have fewer rows of pixels inside the frame are left out.
    """
    sequences = _sequences(source)
    left_out: Counter[str] = Counter()
    rows = (
        (number, *row)
        for number, sequence in enumerate(sequences)
        for row in _boxes(source, sequence, boxes, min_visibility, left_out)
    )
    video, paths, frame, ids, *sides = columns(rows, "<i4", TEXT, "<i4", "<i4", "<f8", "<f8", "<f8", "<f8")
    for what, count in left_out.items():
        say_left_out(source, count, what)
    frames, frame_of = np.unique(paths, return_inverse=True)
    facts = inspect(source, frames)[frame_of]
    clipped = _clip(np.stack(sides, axis=1), facts["width"], facts["height"])
    kept = np.flatnonzero((clipped[:, 2] > 0) & (clipped[:, 3] >= max(min_height, 1)))
    if not len(kept):
        raise UserError(f"no boxes left under {source}; expected people at least {min_height} pixels high in {boxes}")
    tracks = len(np.unique(np.stack([video, ids]), axis=1)[0])
    tracklet = dense_ranks(video[kept], ids[kept])
    gone = tracks - len(np.unique(tracklet))
    whole = f", and with them {gone:,} whole tracks" if gone else ""
    small = f"boxes that have fewer than {min_height} rows of pixels inside the frame (--min-height){whole}"
    say_left_out(source, len(ids) - len(kept), small)
    order = np.lexsort((tracklet, frame[kept], video[kept]))  # unlike elsewhere, so that a frame is decoded once
    kept = kept[order]
    labels = label_rows(dense_ranks(video[kept]), tracklet[order], frame[kept])
    called = np.array([sequence.rstrip("/") or source.resolve().name for sequence in sequences], TEXT)
    names = names_of(labels, called[video[kept]], ids[kept])
    root = os.path.realpath(source)
    return {"train": Crops(root, paths[kept], ids[kept], clipped[kept], labels, facts["bytes"][kept], names)}


def _sequences(source: Path) -> list[str]:
    """Folders of the sequences, below the source and with a slash at their ends, in natural order."""
    if (source / _FRAMES).is_dir():
        return [""]
    rows = ((name,) for name in list_names(source, folders=True) if (source / name / _FRAMES).is_dir())
    (names,) = columns(rows, TEXT)
    if not len(names):
        raise UserError(f"no images found under {source}; expected SEQUENCE/{_FRAMES}/000001.jpg")
    return [f"{name}/" for name in names[np.argsort(natural_ranks(names))]]


def _boxes(source: Path, sequence: str, boxes: str, min_visibility: float, left_out: Counter[str]) -> Iterator[tuple]:
    """Frame path, frame number, track and the four sides of each usable box of a sequence; the others are counted."""
    images = _frame_images(source, sequence)
    seen = set()
    for place, values in _box_lines(source / sequence, boxes):
        frame = int(values[0])
        track = int(values[1])
        if track < 0:
            raise UserError(f"{place}: the box has no track; run a tracker over the detections and give its --boxes")
        if (frame, track) in seen:
            raise UserError(f"{place}: a second box of track {track} in frame {frame}; keep one of them")
        seen.add((frame, track))
        left, top, width, height, active = values[2:7]
        kind, visibility = values[7:9] if len(values) == 9 else (_PEDESTRIAN, 1.0)
        if not active:
            left_out["boxes that are not to be considered (conf 0)"] += 1
        elif kind != _PEDESTRIAN:
            left_out["boxes of other classes than pedestrian"] += 1
        elif visibility < min_visibility:
            left_out[f"boxes of which less than {min_visibility:g} is visible (--min-visibility)"] += 1
        elif frame not in images:
            raise UserError(f"{place}: frame {frame} has no image in {sequence}{_FRAMES}; add it or drop the line")
        else:
            yield images[frame], frame, track, left, top, left + width, top + height


def _frame_images(source: Path, sequence: str) -> dict[int, str]:
    """Image path by frame number; sequences differ in how many digits their file names have, and in the format."""
    images: dict[int, str] = {}
    for path in list_images(source, 1, f"{sequence}{_FRAMES}/"):
        stem = PurePosixPath(path).stem
        if re.fullmatch("[0-9]{1,9}", stem) and images.setdefault(int(stem), path) != path:
            raise UserError(f"{path!r} in {source}: the same frame as {images[int(stem)]!r}; take one of them away")
    return images


def _box_lines(sequence: Path, boxes: str) -> Iterator[tuple[str, list[float]]]:
    """The values of each line of a sequence's boxes file, led by its place for messages."""
    try:
        files = sorted(sequence.glob(boxes))
    except (NotImplementedError, ValueError):  # an absolute path, or nothing at all
        files = []
    if len(files) != 1:
        raise UserError(f"{sequence}: {len(files)} files match {boxes!r}; name the one with boxes, as in --boxes "
                        "'track/*.txt'")  # fmt: skip
    for place, line in placed_lines(files[0]):
        try:
            values = [float(value) for value in line.split(",")]
        except ValueError:
            values = []
        # Ten columns end in world coordinates and have no class. No sound number is as large as this, nor is nan.
        if len(values) not in (7, 9, 10) or not all(abs(v) < 1e9 for v in values) or values[0] % 1 or values[1] % 1:
            raise UserError(f"{place}: {line[:80]!r} is not "
                            "frame,id,left,top,width,height,conf[,class,visibility]")  # fmt: skip
        yield place, values


def _clip(sides: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Left, top, width and height of what lies inside the frame, from left, top, right and bottom."""
    limits = np.stack([width, height, width, height], axis=1)
    corners = np.clip(np.rint(sides), 0, limits).astype(np.int32)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
