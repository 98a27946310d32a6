"""Features and tracklets in one file, however they were made: an .npz with an array for each."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError

#: A file may be unpacked to so many bytes, and to more if it is not so many times its size.
LARGEST, MOST_TIMES = 1 << 30, 100


class Tracked(NamedTuple):
    """One row per image."""

    features: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    frame: np.ndarray | None


def read_table(path: Path) -> Tracked:
    """The arrays features, video, tracklet and, if it is there, frame; nothing that is pickled is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max(LARGEST, MOST_TIMES * path.stat().st_size):
            raise UserError(f"{path}: would unpack to {size / 1e9:,.1f} GB; if it must, write it with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            missing = {"features", "video", "tracklet"} - set(arrays.files)
            if missing:
                raise UserError(f"{path}: has no {', '.join(sorted(missing))}; it has {', '.join(arrays.files)}")
            found = {name: arrays[name] for name in Tracked._fields if name in arrays.files}
            return Tracked(**{"frame": None, **found})
    except FileNotFoundError:
        raise UserError(f"{path}: not there; name an .npz or a folder that `cion embed` wrote") from None
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile promise no more about damaged files
        raise UserError(f"{path}: not an .npz of plain arrays ({error}); write it with numpy.savez") from None
