"""Cameras: where each one looks, and what its lens and sensor do to a picture."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tfrecords_tools.world.tables import dtype_of


class Place(IntEnum):
    """What a camera looks at."""

    STREET, WALL, PARK, SHOP, STATION = range(5)


class Camera(NamedTuple):
    """One row of a table of cameras."""

    place: int
    base: float
    """Row of the scene in which the ground meets what stands behind it."""
    horizon: float
    tall: float
    """Height of a person over the drop from the horizon to the feet."""
    axis: float
    """The heading that most walkers have, or its opposite; 0 is towards the camera, pi/2 to the right."""
    tilt: float
    side: float
    """Where the light comes from: -1 is left, 1 is right."""
    exposure: float
    red: float
    blue: float
    gamma: float
    contrast: float
    saturation: float
    blur: float
    detail: float
    """Share of rows and columns that the sensor really resolves."""
    noise: float


def draw_cameras(rng: np.random.Generator, count: int) -> np.ndarray:
    """A table of cameras."""
    cameras = np.zeros(count, dtype_of(Camera))
    cameras["place"] = (np.arange(count) + rng.integers(len(Place))) % len(Place)
    ranges = {
        "base": (240, 300),
        "tall": (0.68, 0.8),
        "axis": (0, np.pi),
        "tilt": (0.05, 0.3),
        "side": (-1, 1),
        "exposure": (0.88, 1.15),
        "red": (0.94, 1.06),
        "blue": (0.92, 1.08),
        "gamma": (0.9, 1.12),
        "contrast": (0.9, 1.1),
        "saturation": (0.8, 1.15),
        "blur": (0, 0.7),
        "noise": (1, 4),
    }
    for name, (low, high) in ranges.items():
        cameras[name] = rng.uniform(low, high, count)
    cameras["horizon"] = cameras["base"] - rng.uniform(130, 180, count)
    cameras["detail"] = np.where(rng.random(count) < 0.35, rng.uniform(0.5, 0.8, count), 1)
    return cameras


def photograph(camera: Camera, picture: Image.Image, light: float, rng: np.random.Generator) -> np.ndarray:
    """The picture as the camera records it under so much light: uint8, rows x columns x 3."""
    width, height = picture.size
    picture = picture.convert("RGB", _saturate(camera.saturation)).point(_response(camera, light))
    if camera.detail < 1:
        coarse = picture.resize((round(width * camera.detail), round(height * camera.detail)), Image.Resampling.BOX)
        picture = coarse.resize((width, height), Image.Resampling.BILINEAR)
    picture = picture.filter(ImageFilter.BoxBlur(camera.blur))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    return (np.asarray(picture) + camera.noise * noise).clip(0, 255).astype(np.uint8)


def _saturate(amount: float) -> tuple[float, ...]:
    """The matrix that mixes every colour with its own grey."""
    grey = (1 - amount) * np.array([0.3, 0.59, 0.11])
    matrix = np.concatenate([np.tile(grey, (3, 1)) + amount * np.eye(3), np.zeros((3, 1))], axis=1)
    return tuple(matrix.ravel().tolist())


def _response(camera: Camera, light: float) -> list[int]:
    """The 3 x 256 table from true to recorded brightness."""
    gains = camera.exposure * light * np.array([camera.red, 1.0, camera.blue])
    value = (gains[:, None] * np.linspace(0, 1, 256)) ** camera.gamma
    value = 0.45 + camera.contrast * (value - 0.45)
    # Sensors let bright parts run smoothly into white rather than cutting them off.
    value = np.where(value > 0.8, 0.8 + 0.2 * np.tanh((value - 0.8) / 0.2), value)
    return (255 * value).clip(0, 255).astype(int).ravel().tolist()
