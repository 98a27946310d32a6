"""The detector that needs no download: OpenCV's HOG pedestrians, looked for where something moves."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from tfrecords_tools.video.boxes import areas, iou, overlaps, suppress
from tfrecords_tools.video.frames import Frame

# The network was trained on windows of 64 x 128 pixels, in which people are 96 pixels high.
_WINDOW = np.array([64, 128])
_PERSON = np.array([40, 96])
_CELL = 8
_BORDER = 16
_LEVEL = 1.1  # a size of people that is looked for, as a multiple of the one before

_MASK_PERSON = 24  # rows of the smallest person in the mask of what moves
_MEMORY = 500  # frames after which the background has forgotten a change
_MOVING = 0.15  # share of a person's box that must move for it to be looked at
_WHOLE_FRAME = 10  # every so many frames is looked at everywhere: people stand still, too
_UNSTEADY = 0.4  # share of a frame from which on it is the camera that moves

_LEAST = -0.3  # of the network's answers
_OVERLAP = 0.5
_INSIDE = 0.8  # a box with this share in a better one is a part of that person


class _Area(NamedTuple):
    """A part of a frame at the size at which people of one height are 96 pixels high."""

    pixels: np.ndarray
    corner: np.ndarray
    scale: float


class Pedestrians:
    """Asks the HOG detector at all sizes in moving areas and around people seen before, and believes it more where
    the foreground agrees. Nothing is assumed of where the camera hangs."""

    notes: Sequence[str] = ()

    def __init__(self, min_height: int, threads: int):
        self._min_height = min_height
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.array(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
        self._pool = ThreadPoolExecutor(threads)
        self.begin(())

    def begin(self, sample: Iterable[Frame]) -> None:
        """A new stretch: its background is learnt from some of its frames."""
        self._background = cv2.createBackgroundSubtractorMOG2(_MEMORY, detectShadows=True)
        self._looked_at = 0
        self._seen = np.empty((0, 4))
        for number, frame in enumerate(sample, 1):
            self._background.apply(self._reduced(frame.pixels), learningRate=1 / number)

    def __call__(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of people and how sure they are."""
        pixels = frame.pixels
        moving = self._moving(pixels)
        factor = moving.shape[0] / pixels.shape[0]
        to_look_at = self._to_look_at(moving, factor)
        answers = list(self._pool.map(self._ask, self._areas_of(pixels, to_look_at, factor)))
        boxes = np.concatenate([np.empty((0, 4)), *(boxes for boxes, _ in answers)])
        answer = np.concatenate([np.empty(0), *(answer for _, answer in answers)])
        boxes, scores = _one_each(boxes, _scores(answer, _share(moving, boxes * factor), moving.mean()))
        self._looked_at += 1
        self._seen = boxes[scores > 0.25]
        return boxes, scores

    def _reduced(self, pixels: np.ndarray) -> np.ndarray:
        factor = min(1.0, _MASK_PERSON / self._min_height)
        return cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)

    def _moving(self, pixels: np.ndarray) -> np.ndarray:
        """1 where something moves that is no shadow, 0 elsewhere, in a small picture."""
        answer = self._background.apply(self._reduced(pixels), learningRate=1 / _MEMORY)
        return cv2.morphologyEx((answer == 255).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))

    def _to_look_at(self, moving: np.ndarray, factor: float) -> np.ndarray:
        if self._looked_at % _WHOLE_FRAME == 0:
            return np.ones_like(moving)
        mask = moving.copy()
        for left, top, right, bottom in np.clip(np.rint(self._seen * factor), 0, None).astype(int):
            mask[top:bottom, left:right] = 1
        return mask

    def _areas_of(self, pixels: np.ndarray, mask: np.ndarray, factor: float) -> Iterator[_Area]:
        """The areas in which windows have enough of the mask, for each height of people."""
        height = float(self._min_height)
        while height <= pixels.shape[0]:
            scale = _PERSON[1] / height
            height *= _LEVEL
            level = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
            level = cv2.copyMakeBorder(level, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
            columns, rows = (level.shape[1::-1] - _WINDOW) // _CELL + 1
            if columns < 1 or rows < 1:
                continue
            y, x = np.mgrid[:rows, :columns] * _CELL
            people = _people(np.stack([x.ravel(), y.ravel()], axis=1), scale)
            wanted = (_share(mask, people * factor) > _MOVING).astype(np.uint8).reshape(rows, columns)
            _, _, areas_found, _ = cv2.connectedComponentsWithStats(wanted, connectivity=8)
            for column, row, width, depth, _ in areas_found[1:]:
                corner = np.array([column, row]) * _CELL
                right, bottom = corner + (np.array([width, depth]) - 1) * _CELL + _WINDOW
                yield _Area(level[corner[1] : bottom, corner[0] : right], corner, scale)

    def _ask(self, area: _Area) -> tuple[np.ndarray, np.ndarray]:
        places, answer = self._hog.detect(np.ascontiguousarray(area.pixels), _LEAST, (_CELL, _CELL), (0, 0))
        corners = np.asarray(places, np.int64).reshape(-1, 2) + area.corner
        return _people(corners, area.scale), np.asarray(answer, float).ravel()


def _people(corners: np.ndarray, scale: float) -> np.ndarray:
    """Boxes in the frame of the people in windows with these corners."""
    centre = (corners + _WINDOW / 2 - _BORDER) / scale
    half = _PERSON / 2 / scale
    return np.hstack([centre - half, centre + half])


def _share(mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Share of each box that is 1 in a mask."""
    sums = cv2.integral(mask)
    height, width = mask.shape
    left, top, right, bottom = np.clip(np.rint(boxes), 0, [width, height, width, height]).astype(int).T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / np.maximum(areas(boxes), 1)


def _scores(answer: np.ndarray, moving: np.ndarray, frame_moving: float) -> np.ndarray:
    """0 to 1: the network's answer, raised where the box moves. 0.5 is 1.5 of a still box, and 0.8 of a moving one."""
    raised = np.minimum(moving, 0.45) if frame_moving < _UNSTEADY else 0.25
    return 1 / (1 + np.exp(-2 * (answer + 1.5 * raised - 1.5)))


def _one_each(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One box for each person: of boxes that overlap the mean, weighted by score, with the best score."""
    looked_at = scores > 0.08
    boxes, scores = boxes[looked_at], scores[looked_at]
    best = suppress(boxes, scores, _OVERLAP)
    weights = np.where(iou(boxes[best], boxes) > _OVERLAP, scores[None], 0)
    means = weights @ boxes / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    share = overlaps(means, means) / np.maximum(areas(means), 1e-9)[:, None]
    is_part = ((share > _INSIDE) & (scores[best][None] > scores[best][:, None])).any(1)
    return means[~is_part], scores[best][~is_part]
