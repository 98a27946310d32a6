"""Does the memory of an import depend on how long the video is?

python -m experiments.benchmarks.video_memory

Films of several lengths are drawn, in which two people walk to and fro, and each is imported by a process of its own,
with the boxes given. What stays in memory to the end is a row of numbers for each image; frames and pictures do not.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment

_RATE = 10
_HEIGHT, _WIDTH = 240, 320
_PERSON = (96, 40)
_COLOURS = ((220, 30, 30), (30, 40, 220))

_IMPORT = """
import json, sys
from pathlib import Path
from cion_jax.config import Tracking, Writing
from experiments.benchmarks.timing import resident
from tfrecords_tools.video.importing import import_videos

film, boxes, out, minutes = sys.argv[1:]
before = resident("VmHWM")
splits = import_videos(Path(film), Path(out), Tracking(boxes=Path(boxes), minutes=float(minutes)), Writing(workers=1))
print(json.dumps({"images": splits["train"].images, "before": before, "peak": resident("VmHWM")}))
"""


def _left(person: int, frame: int) -> int:
    """Where a person is, to and fro over the whole width."""
    room = _WIDTH - _PERSON[1]
    way = (2 * frame + person * room) % (2 * room)
    return min(way, 2 * room - way)


def _draw(film: Path, boxes: Path, frames: int) -> None:
    """A film, and the boxes of the people in it as a detector would write them."""
    height, width = _PERSON
    wall = np.random.default_rng(0).integers(90, 130, (_HEIGHT, _WIDTH, 3), np.uint8)
    with av.open(str(film), "w") as container, boxes.open("w") as lines:
        stream = container.add_stream("mpeg4", rate=_RATE)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for frame in range(frames):
            picture = wall.copy()
            for person, colour in enumerate(_COLOURS):
                top, left = 20 + 100 * person, _left(person, frame)
                picture[top : top + height, left : left + width] = colour
                lines.write(f"{frame + 1},-1,{left + 1},{top + 1},{width},{height},0.9,-1,-1,-1\n")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def main(lengths: tuple[int, ...] = (1, 4, 16), minutes: float = 0.5) -> None:
    """Import films of several lengths, and print the largest memory of each import.

    Args:
        lengths: Minutes of the films.
        minutes: Of a stretch, see `cion data import video --minutes`.
    """
    print(f"{environment('numpy', 'av')}, stretches of {minutes:g} minutes\n")
    print("| minutes | frames | images | largest memory, MB | of it before the import began |\n|---|---|---|---|---|")
    for length in lengths:
        frames = 60 * _RATE * length
        with tempfile.TemporaryDirectory() as folder:
            film, boxes, out = (Path(folder, name) for name in ("film.mp4", "film.txt", "out"))
            _draw(film, boxes, frames)
            process = [sys.executable, "-c", _IMPORT, str(film), str(boxes), str(out), str(minutes)]
            printed = json.loads(subprocess.run(process, check=True, stdout=subprocess.PIPE).stdout)
        peak, before = (printed[name] / 1e6 for name in ("peak", "before"))
        print(f"| {length} | {frames:,} | {printed['images']:,} | {peak:,.0f} | {before:,.0f} |", flush=True)


if __name__ == "__main__":
    command(main)
