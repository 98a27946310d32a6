"""Bodies, clothes and bags are tubes: rings along a centre line, painted and shaded patch by patch."""

import itertools
import math

from PIL import Image, ImageDraw

from tfrecords_tools.world.tables import Colour

Ring = tuple[float, float, float, float]
"""Centre x, y and the vector from there to the edge at u = 1, in pixels; u = -1 is the opposite edge."""
Tube = list[Ring]
Point = tuple[float, float]


def upright(rings: list[tuple[float, float, float]]) -> Tube:
    """A tube that stands: each ring is centre x, y and half-width."""
    return [(x, y, radius, 0.0) for x, y, radius in rings]


def limb(points: list[Point], radii: list[float]) -> Tube:
    """A tube along a bent line, rounded at both ends."""
    steps = [(bx - ax, by - ay) for (ax, ay), (bx, by) in itertools.pairwise(points)]
    before, after = [steps[0], *steps], [*steps, steps[-1]]
    tube = []
    for (x, y), radius, (ax, ay), (bx, by) in zip(points, radii, before, after, strict=True):
        dx, dy = ax + bx, ay + by
        scale = radius / (math.hypot(dx, dy) or 1.0)
        tube.append((x, y, dy * scale, -dx * scale))
    return [_cap(tube[0], -0.8), *tube, _cap(tube[-1], 0.8)]


def _cap(ring: Ring, beyond: float) -> Ring:
    x, y, nx, ny = ring
    return (x - ny * beyond, y + nx * beyond, nx * 0.5, ny * 0.5)


def wider(tube: Tube, factor: float) -> Tube:
    """The same tube with other radii, as cloth lies over a limb."""
    return [(x, y, nx * factor, ny * factor) for x, y, nx, ny in tube]


def section(tube: Tube, start: float, stop: float) -> Tube:
    """The part of a tube between two shares of its rings, 0..1."""
    last = len(tube) - 1
    first, final = start * last, stop * last
    inner = tube[math.floor(first) + 1 : math.ceil(final)]
    return [_ring_at(tube, first), *inner, _ring_at(tube, final)]


def _ring_at(tube: Tube, place: float) -> Ring:
    index = min(int(place), len(tube) - 2)
    share = place - index
    x, y, nx, ny = (a + share * (b - a) for a, b in zip(tube[index], tube[index + 1], strict=True))
    return (x, y, nx, ny)


def visible(start: float, stop: float, facing: float) -> list[tuple[float, float]]:
    """The spans of u in which the surface between two angles is seen; angle 0 is what a person has in front."""
    spans = []
    for turn in (-2 * math.pi, 0.0, 2 * math.pi):
        low = max(start + facing + turn, -math.pi / 2)
        high = min(stop + facing + turn, math.pi / 2)
        if high - low > 0.05:
            spans.append((math.sin(low), math.sin(high)))
    return spans


class Canvas:
    """A picture in work with its light: what is painted last hides what was there, and its shading too."""

    def __init__(self, picture: Image.Image, side: float) -> None:
        self.picture = picture
        self.light = Image.new("L", picture.size, 255)
        self.side = side
        self._paint = ImageDraw.Draw(picture)
        self._shade = ImageDraw.Draw(self.light)

    def patch(self, tube: Tube, colour: Colour, low: float = -1.0, high: float = 1.0) -> None:
        """Paint the part of a tube between two values of u, without changing its shading."""
        self._paint.polygon(_outline(tube, low, high), colour)

    def tube(self, tube: Tube, colour: Colour, bright: int = 255) -> None:
        """Paint a whole tube and shade it as a round body that is lit from one side."""
        middle = 0.2 * self.side
        top = 0.4 * self.side
        self._paint.polygon(_outline(tube, -1, 1), colour)
        self._shade.polygon(_outline(tube, -1, 1), bright * 56 // 100)
        self._shade.polygon(_outline(tube, middle - 0.75, middle + 0.75), bright * 80 // 100)
        self._shade.polygon(_outline(tube, top - 0.45, top + 0.45), bright)

    def oval(self, x: float, y: float, across: float, down: float, colour: Colour) -> None:
        """Paint and flatly shade an upright ellipse, given by its centre and half-sizes."""
        box = (x - across, y - down, x + across, y + down)
        self._paint.ellipse(box, colour)
        self._shade.ellipse(box, 215)

    def shadow(self, x: float, y: float, across: float, down: float) -> None:
        """Darken the ground under somebody."""
        for share, depth in ((1.0, 215), (0.75, 175), (0.5, 130)):
            self._shade.ellipse((x - across * share, y - down * share, x + across * share, y + down * share), depth)


def _outline(tube: Tube, low: float, high: float) -> list[Point]:
    left = [(x + low * nx, y + low * ny) for x, y, nx, ny in tube]
    right = [(x + high * nx, y + high * ny) for x, y, nx, ny in reversed(tube)]
    return left + right
