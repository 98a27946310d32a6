"""Colour histograms of horizontal stripes: how people were told apart before features were learned."""

import numpy as np
from PIL import Image

from cion_jax.data.records import Records

STRIPES, BINS = 6, 16


def histograms(records: Records, image_size: tuple[int, int]) -> np.ndarray:
    """For each image how often it has hues, saturations and values in each stripe: square roots, as a unit vector."""
    pixels = np.empty((*image_size, 3), np.uint8)
    found = np.empty((len(records), STRIPES * 3 * BINS), np.float32)
    for number, row in enumerate(found):
        records.pixels_into(pixels, number)
        levels = np.asarray(Image.fromarray(pixels).convert("HSV")) // (256 // BINS)
        stripes = np.array_split(levels, STRIPES)
        counts = [np.bincount(each[..., band].ravel(), minlength=BINS) for each in stripes for band in range(3)]
        row[:] = np.sqrt(np.concatenate(counts))
    return found / np.linalg.norm(found, axis=1, keepdims=True)
