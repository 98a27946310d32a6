"""Image files and boxes in video frames as sources for the record writer: checked before it starts, read as it goes."""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np

from cion_jax.data.images import HEADER_BYTES, MAX_PIXELS, ImageError, decode, encode_jpeg, header
from cion_jax.errors import UserError
from cion_jax.terminal import progress_bar
from tfrecords_tools.tracklet_names import Names

#: Text of any length in an array; a Python string per image would not fit in memory.
TEXT = np.dtypes.StringDType()

#: What `inspect` reads of an image.
FACTS = np.dtype([("bytes", "<i8"), ("height", "<i4"), ("width", "<i4")])

#: No image that is small enough to be decoded needs a larger file (four bytes per pixel and nothing compressed).
MAX_BYTES = 4 * MAX_PIXELS

_THREADS = 16  # checking waits for the disk, not for a core
_CHUNK = 256  # images that a thread checks at a time


@dataclass(frozen=True)
class Files:
    """Image files in the order of their records; `checked_files` makes one."""

    root: str
    paths: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    names: Names = ()
    """What tracklets and videos are called in the source, where they have names there; parts do without."""

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int) -> "Files":
        """The images start..stop-1."""
        return Files(self.root, self.paths[start:stop], self.labels[start:stop], self.sizes[start:stop])

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """Each file's bytes with its path below the root."""
        for path in self.paths:
            yield _read(self.root, path), path

    def fingerprint(self) -> str:
        """Digest of paths, file sizes and labels."""
        return _digest(self.paths, self.labels, self.sizes)


@dataclass(frozen=True)
class Crops:
    """Boxes in video frames; boxes of the same frame stand together, so that it is decoded once."""

    root: str
    paths: np.ndarray
    """The frame of each box, below the root."""
    ids: np.ndarray
    """The number that the track has in its sequence, for the name of the crop."""
    boxes: np.ndarray
    """Left, top, width and height in pixels, inside the frame."""
    labels: np.ndarray
    sizes: np.ndarray
    """Bytes of each box's frame."""
    names: Names = ()
    """What tracklets and videos are called in the source; parts do without."""

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int) -> "Crops":
        """The crops start..stop-1."""
        paths, ids, boxes = self.paths[start:stop], self.ids[start:stop], self.boxes[start:stop]
        return Crops(self.root, paths, ids, boxes, self.labels[start:stop], self.sizes[start:stop])

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """Each crop as JPEG, named after its frame and track; crops of a damaged frame are that frame's own bytes.

        Whoever decodes those meets the damage and deals with it as with any other image.
        """
        for path, crops in groupby(zip(self.paths, self.ids, self.boxes, strict=True), key=lambda crop: crop[0]):
            frame = _read(self.root, path)
            try:
                pixels = decode(frame)
            except ImageError:
                pixels = None
            for _, track, (left, top, width, height) in crops:
                crop = frame if pixels is None else encode_jpeg(pixels[top : top + height, left : left + width])
                yield crop, f"{path}#id{track}"

    def fingerprint(self) -> str:
        """Digest of frame paths, frame sizes, tracks, boxes and labels."""
        return _digest(self.paths, self.ids, self.boxes, self.labels, self.sizes)


def _read(root: str, path: str) -> bytes:
    try:
        return Path(root, path).read_bytes()
    except OSError as error:
        raise UserError(f"{path!r} in {root}: {error.strerror}; it could be read before, so put it back") from None


def _digest(paths: np.ndarray, *arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0".encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def checked_files(source: Path, paths: np.ndarray, labels: np.ndarray, expected: str, names: Names = ()) -> Files:
    """One split of image files, ordered by video, tracklet, frame and path.

    What would be refused while writing is refused here already, as far as headers show it.

    Args:
        source: The folder that the paths are relative to; all images must lie in it.
        paths: Where the images are, an array of TEXT.
        labels: Their labels, in the same order.
        expected: Which images are looked for, for the message if there are none.
        names: What tracklets and videos are called in the source, from `names_of`.
    """
    if not len(paths):
        raise UserError(f"no images found under {source}; expected {expected}")
    order = np.argsort(paths, kind="stable")
    repeated = paths[order[1:]][paths[order[1:]] == paths[order[:-1]]]
    if len(repeated):
        raise UserError(f"{repeated[0]!r} in {source}: listed twice{_more(len(repeated))}; list every image once")
    by_path = labels[order]
    order = order[np.lexsort([by_path[field] for field in ("frame", "tracklet", "video")])]
    facts = inspect(source, paths[order])
    return Files(os.path.realpath(source), paths[order], labels[order], facts["bytes"], names)


def inspect(source: Path, paths: np.ndarray) -> np.ndarray:
    """A row of FACTS for each image below a folder; one UserError for all that cannot be used.

    Links are followed as long as they stay in the folder. Only headers are read.
    """
    root = os.path.realpath(source)

    @lru_cache(maxsize=1 << 16)
    def inside(place: Path) -> bool:
        return Path(os.path.realpath(place)).is_relative_to(root)

    def check(path: str) -> tuple[int, int, int] | str:
        if {"", ".", ".."}.intersection(path.split("/")):
            return f"{path!r} in {source}: a path must be relative and lead down, without '..'"
        try:
            place = Path(root, path)
            linked = stat.S_ISLNK(place.lstat().st_mode)
            if not inside(place if linked else place.parent):  # one look at a folder does for all files in it
                return f"{path!r} in {source}: a link leads out of this folder"
            return _facts(place)
        except OSError as error:
            return f"{path!r} in {source}: {error.strerror}"
        except ValueError as error:  # an ImageError, or a null character in the path
            return f"{path!r} in {source}: {error}"

    facts = np.empty(len(paths), FACTS)
    refused = ""
    refusals = 0
    starts = range(0, len(paths), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool, progress_bar("checking images", len(paths)) as advance:
        chunks = pool.map(lambda start: [*map(check, paths[start : start + _CHUNK])], starts)
        for start, checked in zip(starts, chunks, strict=True):
            for row, fact in enumerate(checked, start):
                if isinstance(fact, str):
                    refused = refused or fact
                    refusals += 1
                else:
                    facts[row] = fact
            advance(len(checked))
    if refusals:
        raise UserError(f"{refused}{_more(refusals)}; mend it or leave it out")
    return facts


def _facts(place: Path) -> tuple[int, int, int]:
    status = place.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"has {status.st_size:,} bytes; at most {MAX_BYTES:,} are allowed")
    with place.open("rb") as file:
        data = file.read(HEADER_BYTES)
        try:
            height, width = header(data)
        except ImageError:
            if status.st_size <= HEADER_BYTES:
                raise
            height, width = header(data + file.read())
    return status.st_size, height, width


def _more(offenders: int) -> str:
    return f" (and {offenders - 1:,} more)" if offenders > 1 else ""
