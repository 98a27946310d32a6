"""Garments, bags, hair and hats, painted on the tubes of a body."""

import math

from tfrecords_tools.world.body import Body, Level
from tfrecords_tools.world.people import Bag, Hair, Hat, Lower, Pattern, Sleeves
from tfrecords_tools.world.tables import Colour
from tfrecords_tools.world.tubes import Canvas, Tube, limb, section, upright, visible, wider

SKIRTS: dict[Lower, list[Level]] = {
    Lower.SKIRT: [(0.60, 0.090, 0.070, 0.0), (0.50, 0.105, 0.085, 0.0), (0.33, 0.125, 0.110, 0.01)],
    Lower.LONG_SKIRT: [(0.60, 0.090, 0.070, 0.0), (0.50, 0.105, 0.085, 0.0), (0.12, 0.135, 0.135, 0.01)],
}
BACKPACK: list[Level] = [
    (0.825, 0.050, 0.030, -0.095),
    (0.800, 0.080, 0.048, -0.110),
    (0.680, 0.088, 0.062, -0.122),
    (0.580, 0.086, 0.060, -0.118),
    (0.560, 0.070, 0.045, -0.110),
]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two others."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return (red, green, blue)


def pattern(canvas: Canvas, tube: Tube, kind: int, colour: Colour, facing: float) -> None:
    """Paint a garment's second colour over its first: bands lie at heights, stripes at angles round the body."""
    if kind in (Pattern.HOOPS, Pattern.CHECKS):
        for band in range(4):
            canvas.patch(section(tube, 0.14 + 0.22 * band, 0.25 + 0.22 * band), colour)
    if kind in (Pattern.STRIPES, Pattern.CHECKS):
        for stripe in range(8):
            angle = stripe * math.pi / 4
            for span in visible(angle - 0.2, angle + 0.2, facing):
                canvas.patch(tube, colour, *span)
    if kind == Pattern.BLOCK:
        canvas.patch(section(tube, 0.5, 1), colour)
    if kind == Pattern.PRINT:
        for span in visible(-0.6, 0.6, facing):
            canvas.patch(section(tube, 0.34, 0.6), colour, *span)


def lower_garment(canvas: Canvas, body: Body) -> None:
    """Legs and shoes, with trousers, shorts or a skirt over them; the far leg first."""
    person = body.person
    trousers = person.lower == Lower.TROUSERS
    shorts = person.lower == Lower.SHORTS
    for side in body.sides:
        canvas.tube(side.leg, person.skin)
        canvas.tube(side.foot, person.shoes, 235)
        if trousers or shorts:
            cloth = wider(section(side.leg, 0, 0.97 if trousers else 0.55), 1.12)
            canvas.tube(cloth, person.lower_colour, 235)
            pattern(canvas, cloth, person.lower_pattern, person.lower_second, body.stance.facing)
    if not (trousers or shorts):
        cloth = body.slices(SKIRTS[Lower(person.lower)])
        canvas.tube(cloth, person.lower_colour, 240)
        pattern(canvas, cloth, person.lower_pattern, person.lower_second, body.stance.facing)


def upper_garment(canvas: Canvas, body: Body) -> None:
    """Shirt and open jacket on the torso."""
    person = body.person
    facing = body.stance.facing
    canvas.tube(body.neck, mix(person.skin, (0, 0, 0), 0.12))
    canvas.tube(body.torso, person.top_colour)
    pattern(canvas, body.torso, person.top, person.top_second, facing)
    if person.jacket:
        for span in visible(0.42, 2 * math.pi - 0.42, facing):
            canvas.patch(body.torso, person.jacket_colour, *span)
    else:
        for span in visible(-0.5, 0.5, facing):
            canvas.patch(section(body.torso, 0, 0.1), person.skin, *span)


def arm(canvas: Canvas, body: Body, number: int) -> None:
    """One arm with its sleeve, and the handbag if this hand carries it; arm 0 is the far one."""
    person = body.person
    side = body.sides[number]
    if person.bag == Bag.HANDBAG and number == 1:
        handbag(canvas, body, *side.hand)
    canvas.tube(side.arm, person.skin)
    if person.jacket or person.sleeves != Sleeves.NONE:
        length = 0.38 if person.sleeves == Sleeves.SHORT and not person.jacket else 0.84
        sleeve = wider(section(side.arm, 0, length), 1.2)
        canvas.tube(sleeve, person.jacket_colour if person.jacket else person.top_colour)
        if person.top == Pattern.HOOPS and not person.jacket:
            pattern(canvas, sleeve, person.top, person.top_second, body.stance.facing)


def handbag(canvas: Canvas, body: Body, x: float, y: float) -> None:
    """A bag that hangs from a hand."""
    size = body.stance.size
    half = body.width(0.03, 0.07)
    rings = [(x, y, half * 0.3), (x, y + 0.04 * size, half), (x, y + 0.13 * size, half * 1.1)]
    canvas.tube(upright(rings), body.person.bag_colour)


def backpack(canvas: Canvas, body: Body) -> None:
    """The pack itself, with a pocket."""
    tube = body.slices(BACKPACK, breadth=1)
    canvas.tube(tube, body.person.bag_colour)
    for span in visible(math.pi - 0.7, math.pi + 0.7, body.stance.facing):
        canvas.patch(section(tube, 0.55, 0.8), mix(body.person.bag_colour, (255, 255, 255), 0.18), *span)


def straps(canvas: Canvas, body: Body) -> None:
    """What holds a backpack or shoulder bag, seen on the torso."""
    colour = mix(body.person.bag_colour, (0, 0, 0), 0.25)
    facing = body.stance.facing
    if body.person.bag == Bag.BACKPACK:
        for angle in (-0.62, 0.62):
            for span in visible(angle - 0.13, angle + 0.13, facing):
                canvas.patch(section(body.torso, 0.1, 0.62), colour, *span)
    elif body.person.bag == Bag.SHOULDER:
        depth = 0.07 if body.front > 0 else -0.07
        broad = body.person.breadth
        width = 0.009 * body.stance.size
        points = [(-0.07 * broad, 0.82, 0.0), (0.02 * broad, 0.69, depth), (0.11 * broad, 0.54, 0.0)]
        canvas.patch(limb([body.at(*point) for point in points], [width] * 3), colour)


def shoulder_bag(canvas: Canvas, body: Body) -> None:
    """The bag at the left hip."""
    levels = [(0.56, 0.03, 0.05, 0.0), (0.54, 0.045, 0.08, 0.0), (0.43, 0.045, 0.08, 0.0)]
    canvas.tube(body.slices(levels, breadth=1, x=0.125 * body.person.breadth), body.person.bag_colour)


def hair_behind(canvas: Canvas, body: Body) -> None:
    """Long hair or the tail of a scarf, which the head hides from the front."""
    if body.person.hair in (Hair.LONG, Hair.COVERED):
        levels = [(0.96, 0.045, 0.045, -0.01), (0.90, 0.055, 0.05, -0.02), (0.77, 0.058, 0.03, -0.05)]
        canvas.tube(body.slices(levels, breadth=1), body.person.hair_colour, 230)


def head(canvas: Canvas, body: Body) -> None:
    """Face and hair."""
    person = body.person
    facing = body.stance.facing
    canvas.tube(body.head, person.skin)
    face(canvas, body)
    if person.hair == Hair.BALD:
        return
    if person.hair == Hair.BUN:
        radius = 0.028 * body.stance.size
        canvas.oval(*body.at(0, 0.985, -0.05), radius * body.stance.stretch, radius, person.hair_colour)
    scalp = body.ball(1.07)
    canvas.patch(section(scalp, 0, 0.27), person.hair_colour)
    opening = {Hair.SHORT: 1.4, Hair.BUN: 1.3, Hair.LONG: 1.15, Hair.COVERED: 0.95}[Hair(person.hair)]
    reach = {Hair.SHORT: 0.62, Hair.BUN: 0.68, Hair.LONG: 1.0, Hair.COVERED: 1.0}[Hair(person.hair)]
    for span in visible(opening, 2 * math.pi - opening, facing):
        canvas.patch(section(scalp, 0.1, reach), person.hair_colour, *span)
    if person.hair == Hair.COVERED:
        canvas.patch(section(scalp, 0.86, 1), person.hair_colour)


def face(canvas: Canvas, body: Body) -> None:
    """Eyes and mouth, as far as they can be seen."""
    skin = body.person.skin
    facing = body.stance.facing
    for angle in (-0.42, 0.42):
        for span in visible(angle - 0.17, angle + 0.17, facing):
            canvas.patch(section(body.head, 0.44, 0.53), mix(skin, (20, 10, 10), 0.75), *span)
    for span in visible(-0.3, 0.3, facing):
        canvas.patch(section(body.head, 0.74, 0.80), mix(skin, (130, 30, 40), 0.5), *span)


def hat(canvas: Canvas, body: Body) -> None:
    """A cap, beanie or brimmed hat."""
    person = body.person
    if person.hat == Hat.NONE:
        return
    size = body.stance.size * body.head_scale
    canvas.tube(body.ball(1.16, bottom=0.2), person.hat_colour, 240)
    dark = mix(person.hat_colour, (0, 0, 0), 0.25)
    if person.hat == Hat.BEANIE:
        canvas.patch(body.ball(1.18, top=0.45, bottom=0.15), dark)
    elif person.hat == Hat.BRIMMED:
        canvas.oval(*body.at(0, 0.945, 0.012), 0.098 * size * body.stance.stretch, 0.02 * size, dark)
    elif body.front > -0.35:
        canvas.oval(*body.at(0, 0.94, 0.065), body.width(0.042, 0.04), 0.011 * size, dark)
