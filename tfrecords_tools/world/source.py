"""A split of a drawn world as a source of images."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import PIL
import simplejpeg

from cion_jax.config import World
from cion_jax.data.dataset import digest
from tfrecords_tools.world.cameras import Camera
from tfrecords_tools.world.drawing import VERSION, draw
from tfrecords_tools.world.people import Person
from tfrecords_tools.world.scenes import scene
from tfrecords_tools.world.splits import NAMES, cast
from tfrecords_tools.world.streams import Stream, random
from tfrecords_tools.world.tables import row
from tfrecords_tools.world.walks import Shot


@dataclasses.dataclass(frozen=True, eq=False)
class WorldSource:
    """Images that are drawn when they are asked for, each one on its own."""

    world: World
    split: str
    first: int
    """Number of the first image within its split."""
    labels: np.ndarray
    shots: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> "WorldSource":
        """The images start..stop-1 as a source of their own."""
        rows = slice(start, stop)
        return dataclasses.replace(
            self, first=self.first + start, labels=self.labels[rows].copy(), shots=self.shots[rows].copy()
        )

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """The JPEG bytes of each image, with a name that tells video, tracklet and frame."""
        for index, label in enumerate(self.labels):
            name = f"video{label['video']:03d}/tracklet{label['tracklet']:04d}/{label['frame']:06d}.jpg"
            yield simplejpeg.encode_jpeg(self._draw(index), quality=self.world.quality, colorsubsampling="420"), name

    def fingerprint(self) -> str:
        """Hex digest of the settings, the slice, and the versions of all that draws."""
        versions = (VERSION, np.__version__, PIL.__version__, simplejpeg.__version__)
        return digest(self.world, self.split, self.first, len(self), versions)

    def _draw(self, index: int) -> np.ndarray:
        world = self.world
        (people, cameras) = cast(self.world, self.split)
        shot = row(Shot, self.shots, index)
        camera = row(Camera, cameras, shot.camera)
        rng = random(world.seed, Stream.IMAGES, NAMES.index(self.split), self.first + index)
        walker = row(Person, people, shot.person) if shot.person >= 0 else None
        passer = row(Person, people, shot.other)
        place = scene(camera, world.seed, shot.camera, shot.place)
        return draw(shot, walker, passer, camera, place, world.height, world.width, rng)
