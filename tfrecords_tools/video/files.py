"""Which video files an import is about, and which camera each comes from."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.importers.numbering import natural_ranks

#: Endings of the files that are taken for videos in a folder.
ENDINGS = (
    *(".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
_DIGESTED = 1 << 20  # bytes at both ends of a file by which it is known again


def find_videos(source: Path) -> tuple[Path, list[str], int]:
    """A folder, the videos below it in natural order, and how many other files there are among them.

    Args:
        source: A video, a folder of videos (and folders), or a text file (.txt or .lst) with a path on each line,
            relative to where it stands.
    """
    if source.is_dir():
        files = [path.relative_to(source) for path in source.rglob("*") if path.is_file() and not _hidden(path, source)]
        names = [str(path) for path in files if path.suffix.lower() in ENDINGS]
        if not names:
            raise UserError(f"no videos found under {source}; expected files that end with {', '.join(ENDINGS)}")
        order = np.argsort(natural_ranks(np.array(names, TEXT)), kind="stable")
        return source, [names[place] for place in order], len(files) - len(names)
    if source.suffix.lower() in (".txt", ".lst"):
        names = [line for _, line in placed_lines(source)]
        missing = [place for place, line in placed_lines(source) if not (source.parent / line).is_file()]
        if missing or not names:
            raise UserError(
                f"{missing[0] if missing else source}: names no file; write the path of a video on each line"
            )
        if len(set(names)) < len(names):
            raise UserError(f"{source}: names a file twice; list every video once")
        return source.parent, names, 0
    if not source.is_file():
        raise UserError(f"{source}: no such file; name a video, a folder of videos, or a text file that lists them")
    return source.parent, [source.name], 0


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


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
    """Size of a file and digest of its two ends."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_DIGESTED))
        file.seek(max(size - _DIGESTED, 0))
        digest.update(file.read(_DIGESTED))
    return size, digest.hexdigest()
