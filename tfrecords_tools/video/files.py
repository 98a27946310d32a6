"""Which video files an import is about, and which camera each comes from."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from cion_jax.data.files import exists, is_folder, is_remote, located, matching, read_range, size_of
from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.importers.numbering import natural_ranks
from tfrecords_tools.notices import say

#: Endings of the files that are taken for videos in a folder.
ENDINGS = (
    *(".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
_DIGESTED = 1 << 20  # bytes at both ends of a file by which it is known again
_THREADS = 32  # looking at many files waits for the disk or the store, not for a core

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(ask: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What a function answers to each item, many at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(ask, items))


def find_videos(source: Path) -> tuple[Path, list[str], int]:
    """A folder, the videos below it in natural order, and how many other files there are among them.

    Args:
        source: A video, a folder of videos (and folders), a pattern of paths as of a shell, or a text file (.txt or
            .lst) on a disk with a path or URL on each line, relative to where it stands. Videos may be in a store.
    """
    if re.search(r"[*?[]", str(source)) and not exists(source):
        return _among(*_split_pattern(source))
    if is_folder(source):
        return _among(source, "**/*")
    if not exists(source):
        raise UserError(f"{source}: no such file; name a video, a folder of videos, a pattern like 'films/*.mp4', or a "
                        "text file that lists them")  # fmt: skip
    if source.suffix.lower() in (".txt", ".lst") and not is_remote(source):
        return source.parent, _listed(source), 0
    return source.parent, [source.name], 0


def place_of(root: Path, name: str) -> Path:
    """Where a video of that name is."""
    return located(name) if is_remote(name) else root / name


def _split_pattern(source: Path) -> tuple[Path, str]:
    """The folder before the first part that has a wildcard, and the rest."""
    parts = str(source).split("/")
    wild = next(place for place, part in enumerate(parts) if re.search(r"[*?[]", part))
    return located("/".join(parts[:wild]) or ("/" if wild else ".")), "/".join(parts[wild:])


def _among(root: Path, pattern: str) -> tuple[Path, list[str], int]:
    files = [name for name in matching(root, pattern) if not any(part.startswith(".") for part in name.split("/"))]
    videos = [name for name in files if PurePosixPath(name).suffix.lower() in ENDINGS]
    names = [name for name in videos if _is_text(root, name)]
    if not names:
        place = f"{root}/{pattern}".removesuffix("/**/*")
        raise UserError(f"no videos found under {place}; expected files that end with {', '.join(ENDINGS)}")
    order = np.argsort(natural_ranks(np.array(names, TEXT)), kind="stable")
    return root, [names[place] for place in order], len(files) - len(videos)


def _is_text(root: Path, name: str) -> bool:
    """Whether a name can stand in records; the user is told of one that cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        say(f"{root}: left out {name!a}, whose name is not UTF-8 text; rename it")
        return False
    return True


def _listed(source: Path) -> list[str]:
    lines = list(placed_lines(source))
    names = [line for _, line in lines]
    there = at_once(lambda name: exists(place_of(source.parent, name)), names)
    missing = [place for (place, _), is_there in zip(lines, there, strict=True) if not is_there]
    if missing or not names:
        raise UserError(f"{missing[0] if missing else source}: names no file; write the path of a video on each line")
    if len(set(names)) < len(names):
        raise UserError(f"{source}: names a file twice; list every video once")
    return names


def cameras_of(names: Sequence[str], pattern: str) -> np.ndarray:
    """The number of each video's camera: what the pattern finds in its file name, if those are numbers, or else their
    place in natural order. Without a pattern each video is a camera of its own."""
    if not pattern:
        return np.arange(len(names))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--camera-pattern {pattern!r}: not a regular expression ({error}); mend it") from None
    found = []
    for name in names:
        match = compiled.search(os.path.basename(name))  # noqa: PTH119, a name and no place
        camera = match[1 if compiled.groups else 0] if match else None
        if not camera:
            raise UserError(f"{name}: --camera-pattern {pattern!r} finds no camera in its name; change one of the two")
        found.append(camera)
    if all(re.fullmatch("[0-9]{1,9}", camera) for camera in found):
        return np.array([int(camera) for camera in found])
    return natural_ranks(np.array(found, TEXT))


def known_again_by(path: Path) -> tuple[int, str]:
    """Size of a file and digest of its two ends; of what is no file, or cannot be read, only that."""
    if not is_remote(path) and not path.is_file():  # one could read a pipe without an end
        return -1, "no file"
    try:
        size = size_of(path)
        digest = hashlib.sha256(read_range(path, 0, _DIGESTED))
        digest.update(read_range(path, max(size - _DIGESTED, 0), _DIGESTED))
    except OSError as error:
        return -1, type(error).__name__
    return size, digest.hexdigest()
