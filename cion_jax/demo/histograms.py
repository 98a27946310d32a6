"""Colour histograms of horizontal stripes: what ReID used before features were learned, plain and whitened.

With m the mean and U diag(e) U' the covariance of the histograms of other images, here of those in training, whitening
is y = unit((x - m) U (e + r)^-1/2). Directions in which all images vary then count no more than others.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from cion_jax.data.records import Records

STRIPES = 6
BINS = 16
#: r as a share of the mean of e: it keeps directions of nearly no variance small. Of 0.01, 0.03, ... 10 this value
#: scores best in the worlds of the seeds 7000 and 7001: learned features deserve a strong baseline.
SHRINKAGE = 0.03


class Whitening(NamedTuple):
    """A map of histograms of D bins in all, learned by `whitening`."""

    mean: np.ndarray
    """(D,)"""
    matrix: np.ndarray
    """(D, D): U (e + r)^-1/2."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Whitened unit vectors (N, D) of histograms (N, D)."""
        return _unit((rows - self.mean) @ self.matrix)


def whitening(rows: np.ndarray) -> Whitening:
    """Learn the map from the histograms (N, D) of images that are neither queries nor in the gallery."""
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    scale = (np.maximum(values, 0) + SHRINKAGE * values.mean()) ** -0.5
    return Whitening(rows.mean(axis=0), (vectors * scale).astype(np.float32))


def histograms(records: Records, image_size: tuple[int, int]) -> np.ndarray:
    """A unit vector for each image, (N, D): square roots of the histograms of hue, saturation and value by stripe."""
    pixels = np.empty((*image_size, 3), np.uint8)
    rows = np.empty((len(records), STRIPES * 3 * BINS), np.float32)
    for number, row in enumerate(rows):
        records.pixels_into(pixels, number)
        levels = np.asarray(Image.fromarray(pixels).convert("HSV")) // (256 // BINS)
        stripes = np.array_split(levels, STRIPES)
        counts = [np.bincount(each[..., band].ravel(), minlength=BINS) for each in stripes for band in range(3)]
        row[:] = np.sqrt(np.concatenate(counts))
    return _unit(rows)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
