"""LUPerson-NL."""

from pathlib import Path

import numpy as np

from cion_jax.data.source import Source
from tfrecords_tools.files import TEXT, checked_files
from tfrecords_tools.importers.listing import list_images
from tfrecords_tools.importers.names import numbers_in
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.tracklet_names import names_of

_PATTERN = "(?P<tracklet>[0-9]{1,9})_(?P<frame>[0-9]{1,9})_(?P<object>[0-9]{1,9})"


def lupnl(source: Path) -> dict[str, Source]:
    """LUPerson-NL: SOURCE/country/city/video/{tracklet}_{frame}_{object}.jpg.

    All become the split train. A video is its country, city and video name; a tracklet is its tracklet and object
    number in a video.

    Args:
        source: The folder that holds a folder for each country.
    """
    paths = list_images(source, 4)
    numbers = numbers_in(source, paths, _PATTERN, "00012_000345_6.jpg, {tracklet}_{frame}_{object}")
    folders, _, _ = np.strings.rpartition(paths, np.array("/", TEXT))
    video = natural_ranks(folders)
    tracklet = dense_ranks(video, numbers["tracklet"], numbers["object"])
    labels = label_rows(video, tracklet, numbers["frame"])
    tracklets = np.strings.add(np.strings.add(numbers["tracklet"].astype(TEXT), "_"), numbers["object"].astype(TEXT))
    names = names_of(labels, folders, tracklets)
    return {"train": checked_files(source, paths, labels, "country/city/video/00012_000345_6.jpg", names)}
