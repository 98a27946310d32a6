"""Detectors in ONNX files, run by onnxruntime."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from cion_jax.errors import UserError
from tfrecords_tools.video.boxes import suppress
from tfrecords_tools.video.frames import Frame

_GREY = 114  # what both families of YOLO were trained to see around a frame
_LEAST = 0.1  # less sure boxes help no tracker
_OVERLAP = 0.7
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_DETR_SOFTMAX = 92  # the first DETR has a class for nobody and softmax, those after it sigmoids


class OnnxDetector:
    """Finds people with a network whose output layout is known by name."""

    notes: Sequence[str] = ()

    def __init__(self, path: Path, layout: str, threads: int):
        try:
            import onnxruntime
        except ImportError:
            raise UserError("--detector needs onnxruntime; `pip install onnxruntime`") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # it has errors of its own for each kind of damage
            raise UserError(f"{path}: cannot be used as an ONNX network ({str(error).splitlines()[0]})") from None
        (self._input,) = self._session.get_inputs()[:1]
        height, width = (side if isinstance(side, int) else 640 for side in self._input.shape[2:4])
        self._size = height, width
        self._path = path
        self._look = {"yolox": self._yolox, "yolov8": self._yolov8, "detr": self._detr}[layout]
        self._layout = layout

    def begin(self, sample: Iterable[Frame]) -> None:
        """There is nothing to learn."""

    def __call__(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """People in a frame, best first."""
        try:
            boxes, scores = self._look(frame.pixels)
        except (IndexError, ValueError) as error:
            wrong = f"its output is not of the layout {self._layout} ({error})"
            raise UserError(f"{self._path}: {wrong}; try another --layout") from None
        kept = np.flatnonzero(scores > _LEAST)
        kept = kept[suppress(boxes[kept], scores[kept], _OVERLAP)]
        return boxes[kept], scores[kept]

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        batch = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        return self._session.run(None, {self._input.name: batch})

    def _framed(self, pixels: np.ndarray, centred: bool) -> tuple[np.ndarray, float, np.ndarray]:
        """The frame shrunk into the network's input, by what factor, and where its corner stands there."""
        height, width = self._size
        factor = min(height / pixels.shape[0], width / pixels.shape[1])
        small = cv2.resize(pixels, (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)))
        left = (width - small.shape[1]) // 2 if centred else 0
        top = (height - small.shape[0]) // 2 if centred else 0
        framed = np.full((height, width, 3), _GREY, np.uint8)
        framed[top : top + small.shape[0], left : left + small.shape[1]] = small
        return framed, factor, np.array([left, top, left, top])

    def _yolox(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        framed, factor, corner = self._framed(pixels, centred=False)
        output = self._run(framed[..., ::-1])[0][0]  # BGR, 0 to 255
        cells, stride = self._cells()
        if len(cells) != len(output):
            raise ValueError(f"{len(output)} boxes where {len(cells)} were expected")
        centre = (output[:, :2] + cells) * stride
        sides = np.exp(output[:, 2:4]) * stride
        return (_corners(centre, sides) - corner) / factor, output[:, 4] * output[:, 5]

    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Column and row of each cell of the three grids, and the pixels from one to the next."""
        height, width = self._size
        grids = []
        for stride in (8, 16, 32):
            y, x = np.mgrid[: height // stride, : width // stride]
            grids.append((np.stack([x.ravel(), y.ravel()], axis=1), np.full((x.size, 1), stride)))
        cells, strides = zip(*grids, strict=True)
        return np.concatenate(cells), np.concatenate(strides)

    def _yolov8(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        framed, factor, corner = self._framed(pixels, centred=True)
        output = self._run(framed / np.float32(255))[0][0].T
        if output.shape[1] < 5 or output.shape[0] < output.shape[1]:
            raise ValueError(f"its output has the shape {output.T.shape}")
        return (_corners(output[:, :2], output[:, 2:4]) - corner) / factor, output[:, 4]

    def _detr(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = pixels.shape[:2]
        small = cv2.resize(pixels, self._size[::-1])
        outputs = sorted(self._run((small / np.float32(255) - _MEAN) / _STD), key=lambda array: -array.shape[-1])
        logits, boxes = outputs[0][0], outputs[1][0]
        if boxes.shape[-1] != 4:
            raise ValueError(f"its boxes have the shape {boxes.shape}")
        if logits.shape[-1] == _DETR_SOFTMAX:
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            scores = weights[:, 1] / weights.sum(-1)
        else:
            scores = 1 / (1 + np.exp(-logits[:, 1]))
        return _corners(boxes[:, :2], boxes[:, 2:]) * [width, height, width, height], scores


def _corners(centre: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.hstack([centre - sides / 2, centre + sides / 2])
