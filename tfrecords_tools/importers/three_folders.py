"""The layout that Market-1501 began: training images, queries and gallery in a folder each, labels in file names."""

from pathlib import Path

import numpy as np

from cion_jax.data.source import Source
from tfrecords_tools.files import checked_files
from tfrecords_tools.importers.listing import list_images
from tfrecords_tools.importers.names import numbers_in
from tfrecords_tools.importers.numbering import dense_ranks, label_rows

TRAIN = "bounding_box_train"
_FOLDERS = {"train": TRAIN, "query": "query", "gallery": "bounding_box_test"}


def three_folders(source: Path, pattern: str, example: str, within: str = "") -> dict[str, Source]:
    """The three splits. A video is a camera's sequence, a tracklet is a person in a video.

    Junk (identity -1) and distractors (identity 0) belong to no tracklet.

    Args:
        source: The data set folder.
        pattern: File names without their ending, with the groups identity, camera, frame and perhaps sequence.
        example: A file name that matches, for messages.
        within: The folder below the source that holds the three, with a slash at its end.
    """
    return {split: _split(source, f"{within}{name}/", pattern, example) for split, name in _FOLDERS.items()}


def _split(source: Path, folder: str, pattern: str, example: str) -> Source:
    paths = list_images(source, 1, folder)
    numbers = numbers_in(source, paths, pattern, example)
    video = dense_ranks(*(numbers[key] for key in ("camera", "sequence") if key in (numbers.dtype.names or ())))
    tracklet = np.full(len(paths), -1)
    person = numbers["identity"] > 0
    tracklet[person] = dense_ranks(video[person], numbers["identity"][person])
    labels = label_rows(video, tracklet, numbers["frame"], numbers["camera"], numbers["identity"])
    return checked_files(source, paths, labels, f"{folder}{example}")
