"""Frames of a video file, one after another, the right way up."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.stream import VideoStream

from cion_jax.data.files import StoredFile, StoreError, exists, is_remote, size_of
from cion_jax.errors import UserError
from cion_jax.untrusted import check_is_file

_USUAL_RATE = 25  # where a file does not say
#: A file from the internet must not make FFmpeg fetch others, from there or from this machine.
_OPTIONS = {"protocol_whitelist": "file"}
_LISTS = {"hls", "applehttp", "concat", "dash", "imf", "sdp", "rtsp"}


class VideoError(UserError):
    """A file that gives no frames; the message says why."""


@dataclass(frozen=True)
class Frame:
    """A frame that is decoded, and made pixels when they are asked for."""

    number: int
    """Counted in its file, from 1 as MOTChallenge does."""
    seconds: float
    """Since the first frame."""
    pts: int
    """When it is shown, in the units of its stream; -1 where the file does not say."""
    decoded: Any
    matrix: bytes
    """How it is to be turned, as its file has it; nothing if it is not."""

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 (height, width, 3), RGB, turned as the file says that it is to be shown."""
        return _upright(self.decoded.to_ndarray(format="rgb24"), self.matrix)


class Reading:
    """Goes through a file once; what was wrong with it is known at the end."""

    def __init__(self, path: Path):
        self._path = path
        self.frames = 0
        """Frames so far, the damaged ones too."""
        self.damaged = 0
        """Packets that do not decode, and frames that the decoder calls corrupt."""
        self.promised = 0
        """Frames that the header lets expect; 0 where it says nothing."""
        self.rate = float(_USUAL_RATE)
        """Frames a second, on average."""

    def __iter__(self) -> Iterator[Frame]:
        with opened(self._path) as (container, stream):
            self.promised = _promised_frames(container, stream)
            self.rate = _rate(stream)
            first = None
            for decoded, matrix in _decoded(container, stream, self._count_damage):
                self.frames += 1
                if decoded.is_corrupt:
                    self.damaged += 1
                    continue
                seconds = (self.frames - 1) / self.rate
                if decoded.pts is not None:
                    first = decoded.pts if first is None else first
                    seconds = float((decoded.pts - first) * decoded.time_base)
                yield Frame(self.frames, seconds, _pts(decoded), decoded, matrix)
        if not self.frames:
            raise VideoError(f"{self._path}: no frame of it can be decoded; it is damaged, or cut off at its beginning")

    def _count_damage(self) -> None:
        self.damaged += 1


def _decoded(
    container: InputContainer, stream: VideoStream, on_damage: Callable[[], None]
) -> Iterator[tuple[Any, bytes]]:
    """What decodes, with its display matrix; damaged packets are passed over.

    The matrix is looked up where the rotation changes, and not for each frame: PyAV ties a frame to its side data in a
    circle of references, which keeps it in memory until Python looks for circles.
    """
    rotation = matrix = None
    for decoded in _frames_of(container, stream, on_damage):
        if matrix is None or decoded.rotation != rotation:
            rotation = decoded.rotation
            matrix = bytes(decoded.side_data.get(Type.DISPLAYMATRIX) or b"")
        yield decoded, matrix


def _frames_of(container: InputContainer, stream: VideoStream, on_damage: Callable[[], None]) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except FFmpegError:
            on_damage()
            continue
        if packet is None:
            return
        yield from frames


def _pts(decoded: Any) -> int:
    return -1 if decoded.pts is None else decoded.pts


def frames_from(path: Path, pts: int) -> Iterator[Frame]:
    """The frames of a file from a time on, or from somewhere before it; what comes before is not decoded, and so the
    frames have no numbers (-1)."""
    with opened(path) as (container, stream):
        with suppress(FFmpegError):  # a file in which one cannot jump is read from where it begins
            container.seek(pts, stream=stream)
        for decoded, matrix in _decoded(container, stream, lambda: None):
            if not decoded.is_corrupt:
                yield Frame(-1, -1.0, _pts(decoded), decoded, matrix)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its stream of pictures; anything else is a VideoError."""
    try:
        if not is_remote(path):
            check_is_file(path, "leave it out")
        container = av.open(StoredFile(path) if is_remote(path) else str(path), options=_OPTIONS)
    except (FFmpegError, OSError) as error:
        reason = "it is empty" if exists(path) and not size_of(path) else error.strerror
        raise VideoError(f"{path}: cannot be opened as a video ({reason}); mend it or leave it out") from None
    except UserError as error:
        raise VideoError(str(error)) from None
    with container:
        if _LISTS.intersection(container.format.name.split(",")):
            raise VideoError(f"{path}: is a list of other files, not a video; import those, or leave it out")
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{path}: holds no moving pictures; leave it out")
        try:
            yield container, streams[0]
        except StoreError as error:  # while it is decoded
            raise VideoError(str(error)) from None


def expected_frames(path: Path) -> int:
    """About how many frames a file has; 0 where it cannot be read or its header does not say."""
    try:
        with opened(path) as (container, stream):
            return _promised_frames(container, stream)
    except VideoError:
        return 0


def _rate(stream: VideoStream) -> float:
    """Frames a second, on average."""
    return float(stream.average_rate or stream.guessed_rate or _USUAL_RATE)


def _promised_frames(container: InputContainer, stream: VideoStream) -> int:
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * _rate(stream))
    return round(container.duration / av.time_base * _rate(stream)) if container.duration else 0


def _upright(pixels: np.ndarray, matrix: bytes) -> np.ndarray:
    """Pixels turned and mirrored by quarters, as a display matrix says."""
    if not matrix:
        return pixels
    # Columns x and rows y are shown at (a x + c y, b x + d y), but for a shift.
    a, b, _, c, d = struct.unpack("<5i", matrix[:20])
    if abs(a) < abs(b):
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
