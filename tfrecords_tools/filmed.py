"""Where and when the images of a dataset were filmed, as far as the importer of videos has written it down."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.data.dataset import NAME
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.npz import map_npy
from tfrecords_tools.tracklet_names import read_names

#: Where each image was cut out of its frame, how sure the detector was (0 where the box was filled in between two), and
#: when the frame is shown, in seconds since the first one of its file.
BOXES = np.dtype(
    [("left", "<i4"), ("top", "<i4"), ("width", "<i4"), ("height", "<i4"), ("score", "<f4"), ("seconds", "<f4")]
)
BOXES_FILE = f"{NAME}-train.boxes.npy"
_AGAIN = "import the videos again"


class Filmed(NamedTuple):
    """What is known of N images."""

    videos: dict[int, str]
    """What the video of a tracklet is called, by the tracklet's number; empty where that is not known."""
    seconds: np.ndarray | None
    """(N,) when each image is shown in its file; None where the dataset was not made of videos."""
    score: np.ndarray | None
    """(N,) how sure the detector was of each; 0 where the box was filled in between two."""


def filmed(records: Records) -> Filmed:
    """Where and when the images of a split were filmed."""
    videos = {tracklet: video for tracklet, (video, _) in read_names(records.folder, records.split).items()}
    path = Path(records.folder) / BOXES_FILE
    if records.split != "train" or not path.is_file():
        return Filmed(videos, None, None)
    boxes = map_npy(path, _AGAIN)
    if boxes.shape != (len(records),) or boxes.dtype != BOXES:
        raise UserError(f"{path}: {boxes.dtype} of shape {boxes.shape} for {len(records):,} images; {_AGAIN}")
    return Filmed(videos, np.array(boxes["seconds"], float), np.array(boxes["score"], float))
