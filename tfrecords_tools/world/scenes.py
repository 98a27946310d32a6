"""Places: one larger picture per camera, from which the background of every box is cut."""

import functools

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tfrecords_tools.world.cameras import Camera, Place
from tfrecords_tools.world.streams import Stream, random
from tfrecords_tools.world.tables import Colour

WIDTH, HEIGHT = 1024, 576


@functools.lru_cache(maxsize=64)
def scene(camera: Camera, seed: int, number: int, place: int) -> Image.Image:
    """A numbered place that a numbered camera looks at; drawn once per process, as many boxes are cut from it."""
    rng = random(seed, Stream.SCENES, number, place)
    picture = Image.new("RGB", (WIDTH, HEIGHT), _colour(rng, 0.55, 0.8, 0.1))
    draw = ImageDraw.Draw(picture)
    {
        Place.STREET: _street,
        Place.WALL: _wall,
        Place.PARK: _park,
        Place.SHOP: _shop,
        Place.STATION: _station,
    }[Place((camera.place + place) % len(Place))](draw, rng, camera)
    picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    return ImageChops.multiply(picture, _weather(rng, camera))


def _colour(rng: np.random.Generator, low: float, high: float, tint: float) -> Colour:
    """A shade of grey with a tint; every tint is as likely as any other."""
    red, green, blue = (255 * rng.uniform(low, high) * (1 + tint * rng.uniform(-1, 1, 3))).clip(0, 255).astype(int)
    return (int(red), int(green), int(blue))


def _shift(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(int(channel * factor), 255) for channel in colour)
    return (red, green, blue)


def _weather(rng: np.random.Generator, camera: Camera) -> Image.Image:
    """Stains, grain and broad light over the whole place."""
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for cell, depth in ((128, 0.12), (24, 0.06), (6, 0.04), (3, 0.03)):
        coarse = rng.uniform(-depth, depth, (HEIGHT // cell + 2, WIDTH // cell + 2)).astype(np.float32)
        total += np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    total += 0.12 * camera.side * np.linspace(-1, 1, WIDTH, dtype=np.float32)
    total -= 0.25 * np.exp(-(((np.arange(HEIGHT, dtype=np.float32) - camera.base) / 14) ** 2))[:, None]
    light = Image.fromarray((225 * (1 + total)).clip(0, 255).astype(np.uint8))
    return Image.merge("RGB", (light, light, light))


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera, colour: Colour, tiles: int) -> None:
    """Flat ground with joints that run to a vanishing point on the horizon; no joints if `tiles` is 0."""
    draw.rectangle((0, camera.base, WIDTH, HEIGHT), colour)
    if not tiles:
        return
    joint = _shift(colour, float(rng.choice([0.75, 1.2])))
    vanishing = rng.uniform(0.2, 0.8) * WIDTH
    for line in range(-3 * tiles, 4 * tiles):
        x = line * WIDTH / tiles
        share = (camera.base - camera.horizon) / (HEIGHT - camera.horizon)
        draw.line((vanishing + (x - vanishing) * share, camera.base, x, HEIGHT), joint, 2)
    for line in range(1, 3 * tiles):
        y = camera.horizon + (HEIGHT - camera.horizon) / (1 + 0.25 * line * 6 / tiles)
        if y > camera.base:
            draw.line((0, y, WIDTH, y), joint, 2)


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera) -> None:
    """House fronts with windows, doors and shop signs, a pavement and the road before it."""
    x = 0.0
    while x < WIDTH:
        width = rng.uniform(130, 260)
        front = _colour(rng, 0.45, 0.8, 0.12)
        draw.rectangle((x, 0, x + width, camera.base), front)
        for column in range(int(width // 62)):
            left = x + 14 + column * 62
            glass = _colour(rng, 0.2, 0.5, 0.12)
            low = camera.base - (4 if rng.random() < 0.4 else 50)
            for top, bottom in ((camera.base - 250, camera.base - 165), (camera.base - 115, low)):
                draw.rectangle((left - 3, top - 3, left + 43, bottom + 3), _shift(front, 1.25))
                draw.rectangle((left, top, left + 40, bottom), glass)
                draw.polygon((left, bottom, left + 22, top, left + 34, top, left + 10, bottom), _shift(glass, 1.3))
        draw.rectangle((x, camera.base - 148, x + width, camera.base - 128), _colour(rng, 0.3, 0.8, 0.4))
        x += width
    _ground(draw, rng, camera, _colour(rng, 0.52, 0.68, 0.04), 12)
    kerb = camera.base + rng.uniform(130, 190)
    draw.rectangle((0, kerb, WIDTH, HEIGHT), _colour(rng, 0.36, 0.46, 0.04))
    draw.rectangle((0, kerb - 5, WIDTH, kerb + 4), (190, 188, 182))


def _wall(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera) -> None:
    """A brick or block wall with posters, over plain ground."""
    brick = _colour(rng, 0.45, 0.7, 0.15)
    course = rng.uniform(10, 24)
    length = rng.uniform(28, 60)
    draw.rectangle((0, 0, WIDTH, camera.base), _shift(brick, 0.75))
    for number in range(int(camera.base / course) + 1):
        top = camera.base - (number + 1) * course
        for column in range(-1, int(WIDTH / length) + 1):
            left = (column + 0.5 * (number % 2)) * length
            draw.rectangle((left, top, left + length - 3, top + course - 3), _shift(brick, rng.uniform(0.88, 1.12)))
    for _ in range(rng.integers(2, 6)):
        left, top = rng.uniform(0, WIDTH - 80), camera.base - rng.uniform(120, 200)
        draw.rectangle((left, top, left + 60, top + 85), _colour(rng, 0.4, 0.95, 0.5))
        draw.rectangle((left + 8, top + 10, left + 52, top + 45), _colour(rng, 0.2, 0.9, 0.6))
    _ground(draw, rng, camera, _colour(rng, 0.48, 0.66, 0.04), int(rng.choice([0, 8])))


def _park(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera) -> None:
    """Trees and hedges over grass, with a path."""
    green = np.array([0.7, 1.0, 0.52]) * rng.uniform(100, 135)
    red, leaf, blue = (int(v) for v in green * 0.5)
    draw.rectangle((0, camera.base - 330 * rng.uniform(0.6, 1), WIDTH, camera.base), (red, leaf, blue))
    for layer in range(260):
        x, y = rng.uniform(-30, WIDTH + 30), rng.uniform(-20, camera.base + 10)
        radius = rng.uniform(14, 52) * (1 - 0.4 * layer / 260)
        red, leaf, blue = (int(v) for v in green * rng.uniform(0.4, 1.15) * rng.uniform(0.92, 1.08, 3))
        draw.ellipse((x - radius, y - radius * 0.7, x + radius, y + radius * 0.7), (red, leaf, blue))
    for _ in range(rng.integers(4, 9)):
        x = rng.uniform(0, WIDTH)
        trunk = _colour(rng, 0.2, 0.35, 0.1)
        draw.polygon((x - 7, 0, x + 7, 0, x + 11, camera.base + 8, x - 11, camera.base + 8), trunk)
    red, grass, blue = (int(v) for v in green * 1.1)
    _ground(draw, rng, camera, (red, grass, blue), 0)
    for _ in range(2500):
        x, y = rng.uniform(0, WIDTH), rng.uniform(camera.base, HEIGHT)
        draw.line(
            (x, y, x + rng.uniform(-4, 4), y - rng.uniform(3, 9)), _shift((red, grass, blue), rng.uniform(0.7, 1.25))
        )
    near = camera.base + rng.uniform(150, 220)
    far = camera.base + rng.uniform(40, 70)
    slant = rng.uniform(-50, 50)
    path = _colour(rng, 0.55, 0.7, 0.05)
    draw.polygon((0, far + slant, WIDTH, far - slant, WIDTH, near - slant, 0, near + slant), path)


def _shop(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera) -> None:
    """Shelves full of goods over a tiled floor."""
    draw.rectangle((0, 0, WIDTH, camera.base), _colour(rng, 0.55, 0.75, 0.05))
    for shelf in range(5):
        bottom = camera.base - 8 - shelf * 46
        x = 0.0
        while x < WIDTH:
            width = rng.uniform(8, 30)
            goods = _colour(rng, 0.3, 0.85, 0.35)
            for _ in range(rng.integers(1, 5)):
                draw.rectangle((x, bottom - rng.uniform(20, 36), x + width - 2, bottom), goods)
                x += width
        draw.rectangle((0, bottom, WIDTH, bottom + 6), (205, 203, 198))
    _ground(draw, rng, camera, _colour(rng, 0.56, 0.74, 0.04), int(rng.integers(8, 14)))


def _station(draw: ImageDraw.ImageDraw, rng: np.random.Generator, camera: Camera) -> None:
    """A hall with glass, pillars and lit signs, over large slabs with a guiding line."""
    panel = _colour(rng, 0.45, 0.7, 0.07)
    glass = _colour(rng, 0.45, 0.7, 0.1)
    draw.rectangle((0, 0, WIDTH, camera.base), panel)
    for pane in range(0, WIDTH, 96):
        draw.rectangle((pane + 4, camera.base - 190, pane + 92, camera.base - 6), _shift(glass, rng.uniform(0.75, 1.2)))
    for _ in range(4):
        x = rng.uniform(0, WIDTH - 150)
        sign = _colour(rng, 0.3, 0.8, 0.6)
        draw.rectangle((x, camera.base - 175, x + 150, camera.base - 140), sign)
        draw.rectangle((x + 12, camera.base - 163, x + 100, camera.base - 153), (240, 240, 235))
    for x in range(int(rng.uniform(40, 200)), WIDTH, 290):
        draw.rectangle((x, 0, x + 34, camera.base + 14), _shift(panel, 1.3))
        draw.rectangle((x + 24, 0, x + 34, camera.base + 14), _shift(panel, 0.7))
    _ground(draw, rng, camera, _colour(rng, 0.5, 0.68, 0.04), 7)
    line = camera.base + rng.uniform(60, 200)
    draw.rectangle((0, line, WIDTH, line + 12), (200, 170, 60))
