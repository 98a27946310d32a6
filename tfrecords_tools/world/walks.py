"""Walks: who crosses which camera's view and when, and how that looks in each image."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from tfrecords_tools.world.scenes import HEIGHT, WIDTH
from tfrecords_tools.world.tables import dtype_of

#: Nobody stands nearer to the sides of a scene, in pixels.
MARGIN = 60
#: Places through which a camera is carried, one after the other and from the start again.
PLACES = 5


class Fault(IntEnum):
    """What is wrong with a box; the last two occur in test sets only, as junk."""

    NONE, DRIFT, CUT, WALKER, POLE, CAR, MISS, SCRAP = range(8)


class Walk(NamedTuple):
    """One person's way through one video, in steps; a step is the distance between two sampled frames."""

    person: int
    video: int
    camera: int
    start: int
    stop: int


class Shot(NamedTuple):
    """All that an image's drawing needs beside the tables of people and cameras."""

    person: int
    """Row of the table of people; -1 if the box shows nobody."""
    camera: int
    place: int
    """Which of its camera's places: 0 is where it hangs, others are where it is carried through."""
    x: float
    """Where the feet stand in the scene."""
    y: float
    facing: float
    phase: float
    swing: float
    stretch: float
    """How much wider than in life the box makes people: narrow boxes are stretched to the shape of the image."""
    right: float
    """How far the box is off to the right and down, in heights of the person."""
    down: float
    zoom: float
    light: float
    fault: int
    amount: float
    """How strong the fault is, -1..1; the sign is its side."""
    other: int
    """Who walks past in front, if the fault is that."""


def film(
    rng: np.random.Generator,
    walks: np.ndarray,
    cameras: np.ndarray,
    walk: np.ndarray,
    step: np.ndarray,
    motion: float,
) -> np.ndarray:
    """A table of shots for images given by the number of their walk and by a step in it; boxes have no faults yet.

    A camera that is carried with people, by so many heights of a person in a step, lets places slide by behind them,
    each in a light of its own.
    """
    # What each walk draws for all of its images, in an order that must stay.
    count = len(walks)
    seen = cameras[walks["camera"]]
    middle = (walks["start"] + walks["stop"]) / 2
    heading = seen["axis"] + np.pi * rng.integers(2, size=count) + rng.normal(0, 0.45, count)
    turn = rng.normal(0, 0.04, count)
    speed = rng.uniform(0.08, 0.2, count)
    cadence = rng.uniform(0.5, 1.1, count)
    swing = rng.uniform(0.45, 1.0, count)
    x, y = rng.uniform(0.2, 0.8, count) * WIDTH, rng.uniform(seen["base"] + 60, HEIGHT - 60)
    begin, beat, glow = rng.uniform(0, 2 * np.pi, (3, count))  # phases of gait, of the box and of the light
    carried = motion * rng.uniform(0.5, 1.5, count) * rng.choice([-1, 1], count)
    first = rng.integers(PLACES, size=count) if motion else np.zeros(count, int)
    shine = np.exp(rng.normal(0, 0.15, (len(cameras), PLACES)))

    shots = np.zeros(len(walk), dtype_of(Shot))
    time = step - middle[walk]
    shots["person"] = walks["person"][walk]
    shots["camera"] = walks["camera"][walk]
    # The way: ahead in the direction that one faces, in heights of a body, and past the places of a carried camera.
    facing = heading[walk] + turn[walk] * time
    size = (seen["tall"] * (y - seen["horizon"]))[walk]
    shots["facing"] = facing
    across = x[walk] + size * time * (speed[walk] * np.sin(facing) + carried[walk]) - MARGIN
    width = WIDTH - 2 * MARGIN
    shots["x"] = MARGIN + (across % width if motion else across.clip(0, width))
    shots["place"] = (first[walk] + across // width) % PLACES if motion else 0
    shots["y"] = (y[walk] + 0.3 * size * speed[walk] * time * np.cos(facing)).clip(seen["base"][walk] + 30, HEIGHT - 12)
    # The gait.
    shots["phase"] = begin[walk] + cadence[walk] * time
    shots["swing"] = swing[walk]
    # The box, which sways a little, and the light.
    shots["stretch"] = 1.25 + rng.normal(0, 0.05, count)[walk]
    shots["right"] = 0.02 * np.sin(beat[walk] + 0.5 * time) + rng.normal(0, 0.008, len(walk))
    shots["down"] = 0.015 * np.cos(beat[walk] + 0.4 * time) + rng.normal(0, 0.006, len(walk))
    shots["zoom"] = 1 + 0.04 * rng.uniform(-1, 1, count)[walk]
    shots["light"] = np.exp(0.06 * np.sin(glow[walk] + 0.15 * time) + rng.normal(0, 0.05, count)[walk])
    if motion:
        shots["light"] *= shine[shots["camera"], shots["place"]]
    return shots
