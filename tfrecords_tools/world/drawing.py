"""One image: a box cut from a camera's scene, with who walks there and what the tracker did to the box."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from tfrecords_tools.world.body import Stance
from tfrecords_tools.world.cameras import Camera, photograph
from tfrecords_tools.world.figure import paint_person
from tfrecords_tools.world.people import Person
from tfrecords_tools.world.scenes import HEIGHT, WIDTH
from tfrecords_tools.world.tables import Colour
from tfrecords_tools.world.tubes import Canvas, upright
from tfrecords_tools.world.walks import Fault, Shot

VERSION = 2
"""Counts the changes of what is drawn, so that fingerprints tell old datasets from new ones."""
FINER = 3
"""Everything is painted so many times larger and then reduced, for smooth edges."""


class Box(NamedTuple):
    """A rectangle of the scene, and the height of a person in it."""

    left: float
    top: float
    width: float
    height: float
    body: float


def draw(
    shot: Shot,
    walker: Person | None,
    passer: Person,
    camera: Camera,
    scene: Image.Image,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paint one image: uint8, height x width x 3."""
    box = _box(shot, camera, width / height)
    canvas = Canvas(_cut(scene, box, height, width), camera.side)
    scale = height * FINER / box.height
    squeeze = width * FINER / box.width / scale
    stance = Stance(
        x=(shot.x - box.left) * scale * squeeze,
        y=(shot.y - box.top) * scale,
        size=box.body * scale,
        stretch=squeeze,
        facing=shot.facing,
        phase=shot.phase,
        swing=shot.swing,
        tilt=camera.tilt,
    )
    if walker:
        paint_person(canvas, walker, stance)
        _hide(canvas, shot, passer, stance)
    light = canvas.light.reduce(FINER).filter(ImageFilter.GaussianBlur(height / 128))
    picture = ImageChops.multiply(canvas.picture.reduce(FINER), Image.merge("RGB", (light, light, light)))
    return photograph(camera, picture, shot.light, rng)


def _box(shot: Shot, camera: Camera, aspect: float) -> Box:
    """The box round a walker, with the tracker's jitter and faults."""
    body = camera.tall * (shot.y - camera.horizon)
    height = 1.06 * body * shot.zoom
    x, y = shot.x + shot.right * body, shot.y - 0.495 * body + shot.down * body
    if shot.fault == Fault.DRIFT:
        x, y = x + 0.2 * shot.amount * body, y + 0.1 * abs(shot.amount) * body
    elif shot.fault == Fault.CUT:
        height *= 0.62
        y += np.sign(shot.amount) * 0.24 * body
    elif shot.fault == Fault.MISS:
        x, y = x + np.sign(shot.amount) * 0.36 * body, y + 0.25 * shot.amount * body
    elif shot.fault == Fault.SCRAP:
        height *= 0.35
        y += 0.36 * shot.amount * body
    width = height * aspect / shot.stretch
    return Box(x - width / 2, y - height / 2, width, height, body)


def _cut(scene: Image.Image, box: Box, height: int, width: int) -> Image.Image:
    """The background in a box; one that reaches over the edge of the scene is moved inside."""
    left = min(max(box.left, 0), WIDTH - box.width)
    top = min(max(box.top, 0), HEIGHT - box.height)
    region = (left, top, left + box.width, top + box.height)
    # Only outlines need the finer grid: enlarging a cut of the final size is far faster and reduces to the same pixels.
    cut = scene.resize((width, height), Image.Resampling.BILINEAR, region)
    return cut.resize((width * FINER, height * FINER), Image.Resampling.NEAREST)


def _hide(canvas: Canvas, shot: Shot, passer: Person, stance: Stance) -> None:
    """Paint what stands between the camera and the walker."""
    side = np.sign(shot.amount)
    size = stance.size
    if shot.fault == Fault.WALKER:
        x = stance.x + side * (0.10 + 0.12 * abs(shot.amount)) * size
        nearer = stance._replace(x=x, y=stance.y + 0.05 * size, size=1.06 * size)
        paint_person(canvas, passer, nearer._replace(facing=stance.facing + 9 * shot.amount, phase=stance.phase + 2))
    elif shot.fault == Fault.POLE:
        x = stance.x + 0.12 * shot.amount * size
        grey = int(105 + 65 * shot.amount)
        pole = upright([(x, -5.0, 0.055 * size), (x, canvas.picture.height + 5.0, 0.055 * size)])
        canvas.tube(pole, (grey, grey, grey))
    elif shot.fault == Fault.CAR:
        _car(canvas, stance, side, passer.jacket_colour)


def _car(canvas: Canvas, stance: Stance, side: float, colour: Colour) -> None:
    """The end of a parked car, up to the walker's hips; most of it lies outside the box."""
    size = stance.size
    nose, top = stance.x + side * 0.28 * size, stance.y - 0.38 * size
    profile = [(0.0, 0.48), (0.06, 0.58), (0.3, 0.6), (0.42, 0.6)]
    body = [(nose - side * 0.6 * size, top + down * size, half * size) for down, half in profile]
    canvas.tube(upright(body), colour)
    wheel, low = nose - side * 0.25 * size, stance.y + 0.03 * size
    canvas.oval(wheel, low, 0.1 * size * stance.stretch, 0.1 * size, (25, 25, 28))
    canvas.oval(wheel, low, 0.05 * size * stance.stretch, 0.05 * size, (130, 130, 135))
