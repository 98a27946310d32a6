"""Independent streams of random numbers: what one of them gives never shifts another."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What the numbers are for."""

    CAMERAS, SCENES, PEOPLE, HELD_OUT, STRANGERS, TRAIN, TEST, IMAGES = range(8)


def random(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """The generator of a world's stream, or of one numbered thing in it."""
    return np.random.default_rng([seed, stream, *numbers])
