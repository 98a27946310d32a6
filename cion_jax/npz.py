"""Arrays that others wrote: an .npz is read without running what is pickled, and without filling the memory."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError

#: A file may be unpacked to so many bytes, and to more if that is at most so many times its own size.
MAX_BYTES = 1 << 30
MAX_RATIO = 100


def read_npz(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), expected: str = "an .npz"
) -> dict[str, np.ndarray]:
    """The arrays of these names in an .npz; the optional ones only if they are there.

    `expected` tells a user whose file is not there what to name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max(MAX_BYTES, MAX_RATIO * path.stat().st_size):
            raise UserError(f"{path}: would unpack to {size / 1e9:,.1f} GB; if it must, write it with numpy.savez")
        with np.load(path, allow_pickle=False) as arrays:
            missing = set(needed) - set(arrays.files)
            if missing:
                raise UserError(f"{path}: has no {', '.join(sorted(missing))}; it has {', '.join(arrays.files)}")
            return {name: arrays[name] for name in (*needed, *optional) if name in arrays.files}
    except FileNotFoundError:
        raise UserError(f"{path}: not there; name {expected}") from None
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile promise no more about damaged files
        raise UserError(f"{path}: not an .npz of plain arrays ({error}); write it with numpy.savez") from None
