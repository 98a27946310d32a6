"""What finds people in frames: a detector looks at frames in order and gives boxes with scores from 0 to 1."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cion_jax.config import Tracking
from tfrecords_tools.video.frames import Frame
from tfrecords_tools.video.given import read_boxes

#: Boxes, (N, 4) left, top, right, bottom in pixels of the frame, and their scores, (N,). From 0.5 on a box is sure.
Detections = tuple[np.ndarray, np.ndarray]


class Detector(Protocol):
    """Looks at the frames of one stretch after another."""

    notes: Sequence[str]
    """What the user should know of it, one line each."""

    def begin(self, sample: Iterable[Frame]) -> None:
        """A new stretch begins; the sample is some of its frames, evenly spread."""
        ...

    def __call__(self, frame: Frame) -> Detections:
        """The people in the next frame."""
        ...


def make_detector(tracking: Tracking, boxes: Path | None, threads: int) -> Detector:
    """The detector that the settings ask for, for one video; `boxes` is where that has its own."""
    if boxes is not None:
        return Given(boxes)
    if tracking.detector is not None:
        from tfrecords_tools.video.onnx import OnnxDetector

        return OnnxDetector(tracking.detector, tracking.layout, threads)
    from tfrecords_tools.video.pedestrians import Pedestrians

    return Pedestrians(tracking.min_height, threads)


class Given:
    """Boxes that were found before."""

    def __init__(self, path: Path):
        self._boxes = read_boxes(path)
        self.notes: Sequence[str] = self._boxes.notes

    def begin(self, sample: Iterable[Frame]) -> None:
        """There is nothing to learn."""

    def __call__(self, frame: Frame) -> Detections:
        """The boxes of this frame."""
        height, width = frame.pixels.shape[:2]
        return self._boxes.of_frame(frame.number, width, height)
