"""What importers of videos write beside the index: where and when each image was cut out, and who is followed twice.

A tracker that takes up somebody whom it follows already has two tracklets of one person, with nearly the same box in
the frames that they share. Of these boxes one is kept; which tracklets that were, and how often, is evidence for
denoising: such a pair is one person, and must not be taken for two because it shares frames.
"""

from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cion_jax.data.dataset import NAME
from cion_jax.data.files import is_remote
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.npz import map_npy

#: Where each image was cut out of its frame, how sure the detector was (0 where the box was filled in between two), and
#: when the frame is shown, in seconds since the first one of its file.
BOXES = np.dtype(
    [("left", "<i4"), ("top", "<i4"), ("width", "<i4"), ("height", "<i4"), ("score", "<f4"), ("seconds", "<f4")]
)
BOXES_FILE = f"{NAME}-train.boxes.npy"
#: Two tracklets, in how many frames they had nearly the same box, and how many frames they shared.
DOUBLES = np.dtype([("one", "<i4"), ("other", "<i4"), ("frames", "<i4"), ("shared", "<i4")])
DOUBLES_FILE = f"{NAME}-train.doubles.npy"

#: Fewer frames may be two people who pass each other, and so may a smaller share of those in which both are.
FRAMES = 3
SHARE = 0.8
_AGAIN = "import the videos again"


def read_boxes(records: Records) -> np.ndarray | None:
    """(N,) BOXES of the images of a split; None where there are none."""
    boxes = _beside(records, BOXES_FILE, BOXES)
    if boxes is not None and len(boxes) != len(records):
        raise UserError(f"{records.folder / BOXES_FILE}: {len(boxes):,} boxes for {len(records):,} images; {_AGAIN}")
    return boxes


def joined_tracklets(records: Records) -> np.ndarray:
    """(N,) the tracklet of each image, where tracklets of somebody who was followed twice have the same number."""
    tracklet = np.array(records.index["tracklet"])
    doubles = _beside(records, DOUBLES_FILE, DOUBLES)
    if doubles is None:
        return tracklet
    count = int(tracklet.max(initial=-1)) + 1
    same = doubles[(doubles["frames"] >= FRAMES) & (doubles["frames"] >= SHARE * doubles["shared"])]
    one, other = same["one"], same["other"]
    if len(same) and not (min(one.min(), other.min()) >= 0 and max(one.max(), other.max()) < count):
        raise UserError(f"{records.folder / DOUBLES_FILE}: names tracklets that the index does not have; {_AGAIN}")
    component = connected_components(coo_array((np.ones(len(same)), (one, other)), shape=(count, count)))[1]
    first = np.unique(component, return_index=True)[1]  # a set of tracklets goes by the smallest of their numbers
    return np.where(tracklet < 0, tracklet, first[component[tracklet]].astype(tracklet.dtype))


def _beside(records: Records, name: str, dtype: np.dtype) -> np.ndarray | None:
    """The rows of a file beside the index, where it is there; only the split train has any."""
    path = Path(records.folder) / name
    if records.split != "train" or is_remote(records.folder) or not path.exists():
        return None
    rows = map_npy(path, _AGAIN)
    if rows.dtype != dtype or rows.ndim != 1:
        raise UserError(f"{path}: {rows.dtype} of shape {rows.shape}, not {dtype}; {_AGAIN}")
    return rows
