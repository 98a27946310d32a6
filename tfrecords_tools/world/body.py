"""A walking body as the camera sees it: joints in space, turned, projected and wrapped in tubes."""

import math
from typing import NamedTuple

from tfrecords_tools.world.people import Person
from tfrecords_tools.world.tubes import Point, Tube, limb, upright

Level = tuple[float, float, float, float]
"""Height, half-width, half-depth and forward offset of a horizontal slice, in body heights."""

TORSO: list[Level] = [
    (0.845, 0.038, 0.034, -0.010),
    (0.822, 0.088, 0.050, -0.010),
    (0.795, 0.113, 0.062, -0.006),
    (0.745, 0.112, 0.074, 0.002),
    (0.690, 0.102, 0.074, 0.004),
    (0.620, 0.092, 0.068, 0.002),
    (0.540, 0.098, 0.074, -0.004),
    (0.465, 0.104, 0.080, -0.006),
]
HEAD_HEIGHT = 0.925


class Stance(NamedTuple):
    """Where and how somebody stands in a picture: x, y is the pixel between the feet, size the pixels of a body."""

    x: float
    y: float
    size: float
    stretch: float
    facing: float
    phase: float
    swing: float
    tilt: float


class Side(NamedTuple):
    """One arm and one leg; near is positive on the camera's side of the body."""

    near: float
    arm: Tube
    hand: Point
    leg: Tube
    foot: Tube


class Body:
    """Tubes of one person in one stance. In space x is the left hand's side, y is up and z is forward."""

    def __init__(self, person: Person, stance: Stance) -> None:
        self.person = person
        self.stance = stance
        self.front = math.cos(stance.facing)
        self.across = math.sin(stance.facing)
        legs = {sign: self._leg_bend(sign) for sign in (-1, 1)}
        self.lift = 0.04 - min(0.5 + ankle[0] for _, ankle in legs.values())
        self.sides = sorted((self._side(sign, *legs[sign]) for sign in (-1, 1)), key=lambda side: side.near)
        self.torso = self.slices(TORSO)
        self.head_scale = 1 / person.height
        self.neck = self.slices([(0.89, 0.028, 0.03, 0.0), (0.83, 0.032, 0.032, -0.006)], breadth=1)
        self.head = self.ball(1.0)

    def at(self, x: float, y: float, z: float) -> Point:
        """The pixel of a point in space."""
        stance = self.stance
        near = z * self.front - x * self.across
        right = x * self.front + z * self.across
        down = near * stance.tilt - y - self.lift
        return (stance.x + right * stance.size * stance.stretch, stance.y + down * stance.size)

    def width(self, across: float, depth: float) -> float:
        """Half the width in pixels of an upright elliptic cylinder, seen from the camera."""
        return math.hypot(across * self.front, depth * self.across) * self.stance.size * self.stance.stretch

    def slices(self, levels: list[Level], breadth: float = 0.0, x: float = 0.0) -> Tube:
        """An upright tube through horizontal slices, as broad as the person unless `breadth` says otherwise."""
        broad = breadth or self.person.breadth
        return upright([(*self.at(x, y, z), self.width(a * broad, b * broad)) for y, a, b, z in levels])

    def ball(self, scale: float, top: float = 1.0, bottom: float = -1.0) -> Tube:
        """The head, or what is wrapped round it: scaled, and cut at heights between the crown (1) and the chin (-1)."""
        scale *= self.head_scale
        rings = []
        for step in range(9):
            height = top + (bottom - top) * step / 8
            bulge = math.sqrt(max(1 - abs(height) ** 2.4, 0.0)) * (1 - 0.10 * max(-height, 0))
            rings.append((HEAD_HEIGHT + 0.07 * scale * height, 0.047 * scale * bulge, 0.058 * scale * bulge, 0.012))
        return self.slices(rings, breadth=1)

    def _leg_bend(self, sign: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Knee and ankle of one leg as (up, forward) from the hip."""
        phase = self.stance.phase + (math.pi if sign > 0 else 0)
        thigh = self.stance.swing * 0.45 * math.sin(phase) + 0.05
        shank = thigh - self.stance.swing * (0.15 + 0.7 * max(math.cos(phase), 0) ** 2)
        knee = (-0.235 * math.cos(thigh), 0.235 * math.sin(thigh))
        return knee, (knee[0] - 0.225 * math.cos(shank), knee[1] + 0.225 * math.sin(shank))

    def _side(self, sign: int, knee: tuple[float, float], ankle: tuple[float, float]) -> Side:
        size = self.stance.size
        broad = self.person.breadth
        hip = sign * 0.050 * broad
        leg_points = [(hip, 0.0, 0.0), (hip, knee[0] / 2, knee[1] / 2), (hip * 0.95, *knee), (hip * 0.85, *ankle)]
        leg = [self.at(x, 0.5 + up, ahead) for x, up, ahead in leg_points]
        heel, toe = (0.5 + ankle[0] - 0.022, ankle[1] - 0.022), (0.5 + ankle[0] - 0.03, ankle[1] + 0.085)
        foot = [self.at(hip * 0.85, *heel), self.at(hip * 1.1, *toe)]
        swing = 0.5 * self.stance.swing * math.sin(self.stance.phase + (0 if sign > 0 else math.pi))
        bend = swing + 0.2 + 0.25 * max(swing, 0)
        shoulder = (sign * 0.106 * broad, 0.782, -0.006)
        elbow = (shoulder[0] + sign * 0.018, 0.782 - 0.165 * math.cos(swing), 0.165 * math.sin(swing))
        wrist = (elbow[0], elbow[1] - 0.15 * math.cos(bend), elbow[2] + 0.15 * math.sin(bend))
        hand = (wrist[0], wrist[1] - 0.045 * math.cos(bend), wrist[2] + 0.045 * math.sin(bend))
        joints = [self.at(*joint) for joint in (shoulder, elbow, wrist, hand)]
        thick = size * (0.5 + 0.5 * broad)
        return Side(
            near=-sign * self.across,
            arm=limb(joints, [0.031 * thick, 0.027 * thick, 0.019 * thick, 0.020 * thick]),
            hand=joints[-1],
            leg=limb(leg, [0.060 * thick, 0.054 * thick, 0.040 * thick, 0.026 * thick]),
            foot=limb(foot, [0.026 * size, 0.022 * size]),
        )
