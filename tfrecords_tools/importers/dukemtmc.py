"""DukeMTMC-reID."""

import sys
from pathlib import Path

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools.importers.three_folders import three_folders

_PATTERN = r"(?P<identity>[0-9]{4})_c(?P<camera>[0-9])_f(?P<frame>[0-9]{7})"
_NOTICE = "DukeMTMC was withdrawn by its authors in 2019: the people in it were filmed without their consent"


def dukemtmc(source: Path, *, i_understand: bool = False) -> dict[str, Source]:
    """DukeMTMC-reID: bounding_box_train, query and bounding_box_test with names like 0001_c2_f0046182.jpg.

    The data set was withdrawn by its authors in 2019 over consent and privacy; it should not be used for new work.
    The folders become the splits train, query and gallery. A video is a camera, a tracklet is a person in it.

    Args:
        source: The folder that holds the three folders.
        i_understand: Import it although it was withdrawn.
    """
    if not i_understand:
        raise UserError(f"{source}: {_NOTICE}; if you must import it, say --i-understand")
    print(_NOTICE, file=sys.stderr)
    return three_folders(source, _PATTERN, "0001_c2_f0046182.jpg")
