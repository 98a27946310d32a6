"""Features and tracklets in one file, however they were made: an .npz with an array for each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.arrays import read_arrays


class Tracked(NamedTuple):
    """One row per image."""

    features: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    frame: np.ndarray | None


def read_table(path: Path) -> Tracked:
    """The arrays features, video, tracklet and, if it is there, frame; nothing that is pickled is run."""
    found = read_arrays(path, ["features", "video", "tracklet"], ["frame"])
    return Tracked(found["features"], found["video"], found["tracklet"], found.get("frame"))
