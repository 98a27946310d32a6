"""Boxes in frames of videos, as a source for the record writer: frames are decoded again, and people cut out."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from cion_jax.data.images import encode_jpeg
from cion_jax.errors import UserError
from tfrecords_tools.video.frames import Frame, Reading, frames_from


@dataclass(frozen=True)
class VideoCrops:
    """Crops by video and frame, so that a video is gone through once."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    """What the videos are called in the records."""
    file: np.ndarray
    """(N,) in which video a box stands, as its place in `paths`."""
    rows: np.ndarray
    """(N,) `links.ROW`."""
    labels: np.ndarray
    digest: str
    """Of all that the bytes depend on: the videos and the settings."""

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> "VideoCrops":
        """The crops start..stop-1, without the names of other videos."""
        file = self.file[start:stop]
        used = np.unique(file).tolist()
        return replace(
            self,
            paths=tuple(self.paths[number] for number in used),
            names=tuple(self.names[number] for number in used),
            file=np.searchsorted(used, file),
            rows=self.rows[start:stop],
            labels=self.labels[start:stop],
        )

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """Each crop as JPEG, named after its video, frame and tracklet in its stretch."""
        for number, crops in groupby(zip(self.file.tolist(), self.rows, strict=True), key=lambda crop: crop[0]):
            yield from self._of_video(self.paths[number], self.names[number], [row for _, row in crops])

    def fingerprint(self) -> str:
        """Digest of all that the bytes depend on."""
        return self.digest

    def _of_video(self, path: Path, name: str, rows: list[np.void]) -> Iterator[tuple[bytes, str]]:
        frames = _wanted(path, rows)
        for (number, _), crops in groupby(rows, key=_time):
            pixels = next(frames).pixels
            for row in crops:
                left, top, right, bottom = row["box"].astype(int).tolist()
                yield encode_jpeg(pixels[top:bottom, left:right]), f"{name}#{number:06d}#id{row['tracklet']}"


def _time(row: np.void) -> tuple[int, int]:
    return int(row["frame"]), int(row["pts"])


def _wanted(path: Path, rows: list[np.void]) -> Iterator[Frame]:
    """The frames of rows, each once: from the first one's time on if the file allows such a jump, or else by number."""
    times = [time for time, _ in groupby(rows, key=_time)]
    done = 0
    if all(pts >= 0 for _, pts in times):
        for frame in frames_from(path, times[0][1]):
            if frame.pts == times[done][1]:
                yield frame
                done += 1
                if done == len(times):
                    return
    for frame in Reading(path):
        if frame.number == times[done][0]:
            yield frame
            done += 1
            if done == len(times):
                return
    raise UserError(f"{path}: frame {times[done][0]} could be read before; put the file back as it was")
