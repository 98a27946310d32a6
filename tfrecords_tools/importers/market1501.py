"""Market-1501."""

from pathlib import Path

from cion_jax.data.source import Source
from tfrecords_tools.importers.three_folders import three_folders

_PATTERN = r"(?P<identity>-1|[0-9]{4})_c(?P<camera>[0-9]{1,2})s(?P<sequence>[0-9]{1,2})_(?P<frame>[0-9]{6})_[0-9]{2}"


def market1501(source: Path) -> dict[str, Source]:
    """Market-1501: bounding_box_train, query and bounding_box_test with names like 0002_c1s1_000451_03.jpg.

    They become the splits train, query and gallery. Identities and cameras keep their numbers: -1 is junk, 0 a
    distractor. A video is a sequence of a camera, a tracklet is a person in it.

    Args:
        source: The folder that holds the three folders.
    """
    return three_folders(source, _PATTERN, "0002_c1s1_000451_03.jpg")
