"""CUHK03 under its new protocol."""

from pathlib import Path
from typing import Literal

from cion_jax.data.source import Source
from tfrecords_tools.importers.three_folders import TRAIN, three_folders

_PATTERN = r"(?P<identity>[0-9]{4})_c(?P<camera>[0-9])_(?P<frame>[0-9]{1,9})"


def cuhk03np(source: Path, *, boxes: Literal["detected", "labeled"] = "detected") -> dict[str, Source]:
    """CUHK03-NP: bounding_box_train, query and bounding_box_test with names like 0001_c1_1.png.

    They become the splits train, query and gallery. A video is a camera, a tracklet is a person in it.

    Args:
        source: The folder that holds detected and labeled, or one of these two itself.
        boxes: Boxes that a detector found, or that people drew; without effect where source is one of the two.
    """
    within = "" if (source / TRAIN).is_dir() else f"{boxes}/"
    return three_folders(source, _PATTERN, "0001_c1_1.png", within)
