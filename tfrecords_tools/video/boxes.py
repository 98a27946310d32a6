"""Boxes as (N, 4) arrays of left, top, right and bottom in pixels."""

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Area of each box."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Area that each box of the first shares with each of the second."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.clip(right_bottom - left_top, 0, None), axis=2)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of the first with each of the second."""
    shared = overlaps(first, second)
    return shared / np.maximum(areas(first)[:, None] + areas(second)[None] - shared, 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    """Numbers of the boxes that remain, best first, where no two overlap by more than `most` IoU."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[iou(boxes[best : best + 1], boxes[order])[0] <= most]
    return np.array(kept, np.int64)


def grown(boxes: np.ndarray, share: float) -> np.ndarray:
    """Boxes that are wider and higher by a share of their sides."""
    more = (boxes[:, 2:] - boxes[:, :2]) * share / 2
    return np.hstack([boxes[:, :2] - more, boxes[:, 2:] + more])


def centred(boxes: np.ndarray) -> np.ndarray:
    """Centre x, centre y, width and height of boxes, or of a single one."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.concatenate([boxes[..., :2] + sides / 2, sides], axis=-1)
