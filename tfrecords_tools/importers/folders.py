"""Tracklets as folders of images, the simplest way to bring one's own."""

from pathlib import Path

import numpy as np

from cion_jax.data.source import Source
from tfrecords_tools.files import TEXT, checked_files
from tfrecords_tools.importers.listing import list_images
from tfrecords_tools.importers.names import last_numbers
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.tracklet_names import names_of


def folders(source: Path) -> dict[str, Source]:
    """Folders of tracklets in folders of videos: SOURCE/video/tracklet/image.jpg (or .jpeg, .png).

    All become the split train. The last number in a file name is its frame; where a tracklet has a file without one,
    its files are counted in the order of their names. Hidden files and other files are ignored.

    Args:
        source: The folder that holds a folder for each video.
    """
    paths = list_images(source, 3)
    slash = np.array("/", TEXT)
    videos, _, rest = np.strings.partition(paths, slash)
    tracklets, _, names = np.strings.partition(rest, slash)
    video = natural_ranks(videos)
    tracklet = dense_ranks(video, natural_ranks(tracklets))
    labels = label_rows(video, tracklet, _frames(tracklet, names))
    names = names_of(labels, videos, tracklets)
    return {"train": checked_files(source, paths, labels, "video/tracklet/image.jpg", names)}


def _frames(tracklet: np.ndarray, names: np.ndarray) -> np.ndarray:
    frame = last_numbers(names)
    counted = np.isin(tracklet, tracklet[frame < 0])
    _, tracklet, sizes = np.unique(tracklet[counted], return_inverse=True, return_counts=True)
    frame[counted] = dense_ranks(tracklet, natural_ranks(names[counted])) - (np.cumsum(sizes) - sizes)[tracklet]
    return frame
