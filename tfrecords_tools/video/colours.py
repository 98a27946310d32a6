"""What people look like, as far as it helps to follow them from frame to frame: the colours of their clothes."""

import cv2
import numpy as np

_PARTS = ((0.12, 0.5), (0.5, 0.9))  # of the height: shirt and trousers, without head and feet
_SIDE = 1 / 6  # of the width, left out on both sides: mostly background
_HUES, _SATURATIONS, _VALUES = 8, 4, 8
SIZE = len(_PARTS) * (_HUES * _SATURATIONS + _VALUES)


def colours_of(pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, SIZE) histograms whose products are their likeness, from 0 to 1 (Bhattacharyya)."""
    result = np.zeros((len(boxes), SIZE), np.float32)
    height, width = pixels.shape[:2]
    for row, (left, top, right, bottom) in enumerate(boxes):
        margin = _SIDE * (right - left)
        columns = slice(*np.clip(np.rint([left + margin, right - margin]).astype(int), 0, width))
        shares = []
        for start, stop in _PARTS:
            edges = np.rint([top + start * (bottom - top), top + stop * (bottom - top)]).astype(int)
            shares.append(_histogram(pixels[slice(*np.clip(edges, 0, height)), columns]))
        result[row] = np.sqrt(np.concatenate(shares) / (2 * len(_PARTS)))
    return result


def _histogram(part: np.ndarray) -> np.ndarray:
    """Shares of hue and saturation, then of brightness."""
    if not part.size:
        return np.zeros(SIZE // len(_PARTS))
    hsv = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2HSV)
    hues = cv2.calcHist([hsv], [0, 1], None, [_HUES, _SATURATIONS], [0, 180, 0, 256])
    values = cv2.calcHist([hsv], [2], None, [_VALUES], [0, 256])
    return np.concatenate([hues.ravel(), values.ravel()]) / (part.shape[0] * part.shape[1])
