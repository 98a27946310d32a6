"""Colour histograms of horizontal stripes: how people were told apart before features were learned.

Plain, and whitened: with the mean m and the covariance U diag(e) U' of the histograms of other images, here of those in
training, y = unit((x - m) U (e + r)^-1/2). What differs among all images then counts less than what is rare.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from cion_jax.data.records import Records

STRIPES, BINS = 6, 16
#: r as a share of the mean of e: directions of nearly no variance are not blown up. Of 0.01, 0.03, ... 10 this finds
#: the most in the worlds of the seeds 7000 and 7001, for a rival of what is learned should be strong.
SHRINKAGE = 0.03


class Whitening(NamedTuple):
    """What histograms are taken to have in common, of D bins in all."""

    mean: np.ndarray
    """(D,)"""
    matrix: np.ndarray
    """(D, D): U (e + r)^-1/2."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Whitened unit vectors (N, D) of histograms (N, D)."""
        return _unit((rows - self.mean) @ self.matrix)


def whitening(rows: np.ndarray) -> Whitening:
    """Learn the whitening from the histograms (N, D) of images that are neither queries nor in the gallery."""
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    scale = (np.maximum(values, 0) + SHRINKAGE * values.mean()) ** -0.5
    return Whitening(rows.mean(axis=0), (vectors * scale).astype(np.float32))


def histograms(records: Records, image_size: tuple[int, int]) -> np.ndarray:
    """For each image how often it has hues, saturations and values in each stripe: square roots, as a unit vector."""
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
