"""Files are written beside their place and then moved there: nobody ever meets half a file."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object], aside: Path | None = None) -> None:
    """Let `write` fill a file beside its place (or in the folder `aside`), then move it there whole and durable."""
    unfinished = (aside or path.parent) / f".{path.name}.{os.getpid()}"
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
