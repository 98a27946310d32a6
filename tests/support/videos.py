"""Small films of coloured boxes that walk, drawn and encoded by the tests, and what a detector would say of them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 96, 160


@dataclass(frozen=True)
class Walker:
    """Somebody of one colour who walks at a constant speed from some frame on."""

    colour: tuple[int, int, int]
    left: float
    speed: float
    top: int = 20
    size: tuple[int, int] = (60, 24)
    first: int = 1
    last: int = 10**6

    def box(self, frame: int) -> tuple[float, float, float, float] | None:
        """Left, top, right and bottom in a frame, counted from 1."""
        if not self.first <= frame <= self.last:
            return None
        left = self.left + self.speed * (frame - self.first)
        return left, self.top, left + self.size[1], self.top + self.size[0]


RED = Walker((220, 30, 30), 4, 1)
BLUE = Walker((30, 40, 220), 120, -1, top=30)


def pictures(walkers: Sequence[Walker], frames: int) -> list[np.ndarray]:
    """The frames of a film: walkers before a grey wall with a pattern."""
    wall = np.random.default_rng(0).integers(90, 130, (HEIGHT // 8, WIDTH // 8, 1), np.uint8)
    wall = wall.repeat(8, 0).repeat(8, 1).repeat(3, 2)
    result = []
    for frame in range(1, frames + 1):
        picture = wall.copy()
        for walker in walkers:
            if box := walker.box(frame):
                left, top, right, bottom = (max(round(side), 0) for side in box)
                picture[top:bottom, left:right] = walker.colour
        result.append(picture)
    return result


def write_video(
    path: Path, frames: Sequence[np.ndarray], times: Sequence[int] = (), turned: Sequence[int] = ()
) -> Path:
    """Encode frames at ten a second, a key frame in ten; or at times of one's own, in tenths of a second.

    `turned` is what an mp4 file says of how it is to be shown: the first four numbers a, b, c, d of its matrix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = frames[0].shape[1::-1]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 10
        stream.codec_context.time_base = Fraction(1, 10)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if turned:
        a, b, c, d = (65536 * value for value in turned)
        plain, wanted = (
            struct.pack(">9i", *matrix, 0, 0, 1 << 30) if len(matrix) == 6 else b""
            for matrix in ((65536, 0, 0, 0, 65536, 0), (a, b, 0, c, d, 0))
        )
        data = path.read_bytes()
        track = data.index(b"tkhd")
        path.write_bytes(data[:track] + data[track:].replace(plain, wanted, 1))
    return path


def write_mot(path: Path, walkers: Sequence[Walker], frames: int, score: float = 0.9) -> Path:
    """The boxes of walkers as a detector would write them."""
    lines = []
    for frame in range(1, frames + 1):
        for walker in walkers:
            if box := walker.box(frame):
                left, top, right, bottom = box
                lines.append(f"{frame},-1,{left + 1},{top + 1},{right - left},{bottom - top},{score},-1,-1,-1")
    path.write_text("\n".join(lines) + "\n")
    return path
