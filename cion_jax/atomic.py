"""Output that nobody meets half made: files are written whole or not at all, and a folder belongs to one thing."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cion_jax.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], object], aside: Path | None = None) -> None:
    """Let `write` fill a file beside its place (or in the folder `aside`), then move it there whole and durable."""
    unfinished = (aside or path.parent) / f".{path.name}.{os.getpid()}"
    if aside is None:
        _sweep(path)
    try:
        write(unfinished)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    """Take away what processes have left that were killed while they wrote this file."""
    for place in path.parent.iterdir():
        name, _, process = place.name.rpartition(".")
        if name == f".{path.name}" and process.isdigit() and not _is_alive(int(process)):
            place.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def claim_folder(out: Path, notes: Sequence[Path], check: Callable[[Path], None]) -> Path | None:
    """Make a folder one's own, or see that it is the same thing that was begun; any other is refused untouched.

    Args:
        out: The folder, which need not be there yet.
        notes: The files in it, or in a folder in it, that may say what it holds; the first that is there counts.
        check: Reads that file, and raises a UserError if it speaks of another thing.

    Returns:
        The note that was there. None if there was none: then the folders are made, and the caller writes the last note.
    """
    for note in notes:
        if note.exists():
            check(note)
            return note
    own = {note.parent for note in notes}  # perhaps made by a call that was killed before it wrote its note
    if out.exists() and (not out.is_dir() or any(path not in own for path in out.iterdir())):
        raise UserError(f"{out}: already holds something else; choose another folder or delete this one")
    notes[-1].parent.mkdir(parents=True, exist_ok=True)
    return None


#: Folders that this process writes to.
_writing: set[Path] = set()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes that ask from writing to a folder, which is there; one that is killed lets go of it."""
    folder = folder.resolve()
    if folder in _writing:  # whoever called us has it
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        _lock(folder, place)
        _writing.add(folder)
        yield
    finally:
        _writing.discard(folder)
        os.close(place)


def _lock(folder: Path, place: int) -> None:
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is writing there; let it end, or choose another folder") from None
    except OSError:
        pass  # there are file systems without locks
