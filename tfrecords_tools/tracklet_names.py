"""What tracklets and videos are called where they come from: a table beside the index, as CSV.

    tracklet,video,video_name,tracklet_name
    0,0,MOT17-02,1
    1,0,MOT17-02,14

The first two are the numbers in the index; the others are the names in the source.
"""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from cion_jax.data.dataset import NAME

#: Columns of the table.
COLUMNS = ("tracklet", "video", "video_name", "tracklet_name")


def names_file(split: str) -> str:
    """Name of the table of a split."""
    return f"{NAME}-{split}.tracklets.csv"


def write_names(rows: Iterable[tuple[int, int, str, str]]) -> Callable[[Path], None]:
    """What fills such a table with rows of tracklet, video, and their names."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)

    return write


def first_of_each(tracklet: np.ndarray) -> np.ndarray:
    """An image of each tracklet, in the order of their numbers; images without a tracklet have none."""
    values, first = np.unique(tracklet, return_index=True)
    return first[values >= 0]
