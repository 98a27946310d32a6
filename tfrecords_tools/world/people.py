"""What people look like: every attribute is drawn independently, except those of look-alikes."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from tfrecords_tools.world.tables import Colour, dtype_of


class Hair(IntEnum):
    """How the hair is worn; COVERED is a headscarf."""

    SHORT, LONG, BUN, BALD, COVERED = range(5)


class Hat(IntEnum):
    """What is worn on the head."""

    NONE, CAP, BEANIE, BRIMMED = range(4)


class Pattern(IntEnum):
    """How the two colours of a garment are laid out."""

    PLAIN, HOOPS, STRIPES, CHECKS, BLOCK, PRINT = range(6)


class Sleeves(IntEnum):
    """How much of the arm is covered."""

    NONE, SHORT, LONG = range(3)


class Lower(IntEnum):
    """What is worn on the legs."""

    TROUSERS, SHORTS, SKIRT, LONG_SKIRT = range(4)


class Bag(IntEnum):
    """What is carried."""

    NONE, BACKPACK, SHOULDER, HANDBAG = range(4)


class Person(NamedTuple):
    """One row of a table of people."""

    height: float
    breadth: float
    skin: Colour
    hair: int
    hair_colour: Colour
    hat: int
    hat_colour: Colour
    top: int
    top_colour: Colour
    top_second: Colour
    sleeves: int
    jacket: int
    jacket_colour: Colour
    lower: int
    lower_pattern: int
    lower_colour: Colour
    lower_second: Colour
    shoes: Colour
    bag: int
    bag_colour: Colour


_CHOICES = {
    "hair": [0.42, 0.27, 0.12, 0.09, 0.10],
    "hat": [0.72, 0.11, 0.09, 0.08],
    "top": [0.40, 0.14, 0.10, 0.09, 0.13, 0.14],
    "sleeves": [0.10, 0.42, 0.48],
    "jacket": [0.72, 0.28],
    "lower": [0.60, 0.17, 0.14, 0.09],
    "lower_pattern": [0.72, 0.04, 0.12, 0.08, 0.04],
    "bag": [0.40, 0.27, 0.19, 0.14],
}
_SKINS = [(255, 222, 200), (241, 194, 160), (214, 160, 118), (168, 112, 76), (117, 74, 48), (70, 44, 32)]
_HAIRS = [(22, 18, 18), (48, 32, 22), (92, 58, 34), (150, 100, 52), (206, 168, 104), (140, 52, 26), (150, 150, 150)]
_SMALL = ("hair", "hat", "shoes", "bag")


def draw_people(rng: np.random.Generator, count: int, look_alikes: float) -> np.ndarray:
    """A table of `count` people, of whom a share are dressed nearly like another one in it."""
    people = np.zeros(count, dtype_of(Person))
    people["height"] = rng.normal(1.0, 0.05, count).clip(0.86, 1.12)
    people["breadth"] = rng.gamma(30, 1 / 30, count).clip(0.75, 1.5)
    people["skin"] = _between(rng, _SKINS, count)
    people["hair_colour"] = _between(rng, _HAIRS, count)
    for name, shares in _CHOICES.items():
        people[name] = rng.choice(len(shares), count, p=shares)
    for name, kind in Person.__annotations__.items():
        if kind is Colour and name not in ("skin", "hair_colour"):
            people[name] = _cloth_colours(rng, count)
    _copy_looks(rng, people, round(count * look_alikes / 2))
    return people


def _between(rng: np.random.Generator, anchors: list[Colour], count: int) -> np.ndarray:
    """Colours along a line through the anchors, a little off it."""
    place = rng.uniform(0, len(anchors) - 1, count)
    colours = [np.interp(place, range(len(anchors)), channel) for channel in zip(*anchors, strict=True)]
    return (np.stack(colours, axis=1) + rng.normal(0, 5, (count, 3))).clip(8, 255)


def _cloth_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Half of all clothes are black, white, grey or nearly so; the others have any hue."""
    hue = rng.uniform(0, 6, count)
    neutral = rng.random(count) < 0.45
    saturation = np.where(neutral, rng.uniform(0, 0.2, count), rng.uniform(0.25, 0.8, count))
    value = np.where(neutral, rng.uniform(0.1, 0.95, count), rng.uniform(0.25, 0.9, count))
    ramp = np.abs((hue[:, None] + [0, 4, 2]) % 6 - 3) - 1
    return 255 * value[:, None] * (1 - saturation[:, None] * (1 - ramp.clip(0, 1)))


def _copy_looks(rng: np.random.Generator, people: np.ndarray, pairs: int) -> None:
    """Make pairs of look-alikes: one is a copy of the other except in one or two small things."""
    order = rng.permutation(len(people))
    for copy, original in zip(order[:pairs], order[pairs : 2 * pairs], strict=True):
        own = people[copy].copy()
        people[copy] = people[original]
        for name in rng.choice(_SMALL, rng.integers(1, 3), replace=False):
            if name in _CHOICES:
                kinds = len(_CHOICES[name])
                people[name][copy] = (people[name][original] + rng.integers(1, kinds)) % kinds
            else:
                people[name][copy] = own[name]
