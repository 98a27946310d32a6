"""What tracklets and videos are called where they come from: a table beside the index, as CSV.

    tracklet,video,video_name,tracklet_name
    0,0,MOT17-02,1
    1,0,MOT17-02,14

The first two are the numbers in the index; the others are the names in the source.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cion_jax.data.dataset import NAME
from cion_jax.data.files import Folder, exists, located, read
from cion_jax.errors import UserError

#: Columns of the table.
COLUMNS = ("tracklet", "video", "video_name", "tracklet_name")


def names_file(split: str) -> str:
    """Name of the table of a split."""
    return f"{NAME}-{split}.tracklets.csv"


#: Tracklet, video, and what they are called in the source.
Names = Sequence[tuple[int, int, str, str]]


def names_of(labels: np.ndarray, videos: np.ndarray, tracklets: np.ndarray) -> Names:
    """The names of all tracklets, by their numbers.

    Args:
        labels: (N,) LABELS of all images.
        videos: (N,) what the video of each is called.
        tracklets: (N,) what the tracklet of each is called.
    """
    values, first = np.unique(labels["tracklet"], return_index=True)
    first = first[values >= 0]
    numbers = labels[first][["tracklet", "video"]].tolist()
    return [(*pair, str(videos[image]), str(tracklets[image])) for pair, image in zip(numbers, first, strict=True)]


def read_names(folder: Folder, split: str) -> dict[int, tuple[str, str]]:
    """What the source calls the video and the tracklet, by the number of the tracklet; nothing where no table is."""
    path = located(folder) / names_file(split)
    if not exists(path):
        return {}
    reader = csv.reader(io.StringIO(read(path).decode("utf-8", "replace"), newline=""))
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ValueError(f"the first line is not {','.join(COLUMNS)}")
        return {int(tracklet): (video, name) for tracklet, _, video, name in reader}
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}:{reader.line_num}: unreadable ({error}); import the dataset again") from None


def write_names(rows: Names) -> Callable[[Path], None]:
    """What fills such a table with rows of tracklet, video, and their names."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(rows)

    return write
