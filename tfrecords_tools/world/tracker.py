"""A tracker's mistakes: walks broken in two, tracklets that go on with somebody else, bad and empty boxes."""

from typing import NamedTuple

import numpy as np

from tfrecords_tools.world.scenes import WIDTH
from tfrecords_tools.world.tables import dtype_of
from tfrecords_tools.world.walks import Fault

RUN = 3
"""Faults last for so many images on end."""
GAPS = (1, 2)
"""Steps that are lost between the two parts of a broken walk."""
LEAST = 2
"""Images that a mistake leaves on either side of it."""


class Segment(NamedTuple):
    """Steps start..stop-1 of one walk, as part of one tracklet."""

    tracklet: int
    walk: int
    start: int
    stop: int


def track(rng: np.random.Generator, walks: np.ndarray, fragments: float, switches: float) -> np.ndarray:
    """A table of segments: each walk is one tracklet, except the shares that are broken or switched."""
    segments = np.zeros(len(walks), dtype_of(Segment))
    segments["tracklet"] = segments["walk"] = np.arange(len(walks))
    segments["start"] = walks["start"]
    segments["stop"] = walks["stop"]
    segments = _break(rng, segments, round(fragments * len(walks)))
    return _switch(rng, segments, walks["video"][segments["walk"]], round(switches * len(segments)))


def _break(rng: np.random.Generator, segments: np.ndarray, wanted: int) -> np.ndarray:
    """Break so many segments in two, with a gap between, if as many are long enough."""
    length = segments["stop"] - segments["start"]
    chosen = rng.permutation(np.flatnonzero(length >= 2 * LEAST + max(GAPS)))[:wanted]
    gap = rng.choice(GAPS, len(chosen))
    first = segments["start"][chosen] + rng.integers(LEAST, length[chosen] - LEAST - gap + 1)
    later = segments[chosen]
    later["tracklet"] = len(segments) + np.arange(len(chosen))
    later["start"] = first + gap
    segments["stop"][chosen] = first
    return np.concatenate([segments, later])


def _switch(rng: np.random.Generator, segments: np.ndarray, video: np.ndarray, wanted: int) -> np.ndarray:
    """Let so many tracklets jump to another walker, whose own tracklet ends there; nobody is tracked twice at once.

    Each tracklet takes part in one switch at most, so that no more than half of them can jump.
    """
    free = np.ones(len(segments), bool)
    added: list[tuple[int, ...]] = []
    for index in rng.permutation(len(segments)):
        if len(added) == wanted:
            break
        own = segments[index]
        low = np.maximum(own["start"], segments["start"]) + LEAST
        high = np.minimum(own["stop"], segments["stop"]) - LEAST
        partners = np.flatnonzero(free & (video == video[index]) & (segments["walk"] != own["walk"]) & (low <= high))
        if not free[index] or not len(partners):
            continue
        other = rng.choice(partners)
        moment = rng.integers(low[other], high[other] + 1)
        added.append((own["tracklet"], segments["walk"][other], moment, segments["stop"][other]))
        segments["stop"][[index, other]] = moment
        free[[index, other]] = False
    return np.concatenate([segments, np.array(added, segments.dtype)])


def spoil(rng: np.random.Generator, shots: np.ndarray, bad_boxes: float, background: float, people: int) -> None:
    """Give shares of the shots a bad box or nobody in it, in runs of neighbours."""
    run = np.arange(len(shots)) // RUN
    runs = len(shots) // RUN + 1
    dice = rng.random(runs)[run]
    empty = dice < background
    bad = (dice >= background) & (dice < background + bad_boxes)
    shots["fault"][bad] = rng.integers(Fault.DRIFT, Fault.CAR + 1, runs)[run][bad]
    shots["amount"] = rng.uniform(-1, 1, runs)[run]
    shots["other"] = (shots["person"] + rng.integers(1, max(people, 2), runs)[run]) % people
    shots["person"][empty] = -1
    shots["x"][empty] = rng.uniform(0.05, 0.95, runs)[run][empty] * WIDTH
