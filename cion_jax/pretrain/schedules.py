"""Learning rate, weight decay and the teacher's momentum as functions of the time in epochs.

Time is (epoch + batch / batches): it runs on evenly when the number of batches changes with the stage or the labels,
and so do the schedules.
"""

import math
from typing import NamedTuple

import jax
import numpy as np

from cion_jax.config import Optimization

Number = float | np.ndarray | jax.Array


class StepValues(NamedTuple):
    """What changes from step to step from outside."""

    learning_rate: Number
    weight_decay: Number
    ema_step: Number
    """Share of the teacher that is taken from the student: 1 - momentum, in whose place float32 would lose it."""
    frozen: bool | np.ndarray | jax.Array
    """Whether the prototypes stand still."""

    def as_dict(self) -> dict[str, Number]:
        """Those that a journal names, as people know them."""
        return {
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "momentum": 1 - self.ema_step,
        }


def values_at(settings: Optimization, images: int, epochs: int, epoch: int, batch: int, batches: int) -> StepValues:
    """The rates of one step: batch number `batch` of `batches` in an epoch, of `images` images.

    The warm-up's last step has the peak rate, and so has the step after it, as in the published code.
    """
    time, step = epoch + batch / batches, 1 / batches
    peak = settings.learning_rate * images / 256
    if time < settings.warmup:
        rising = settings.warmup - step
        learning_rate = peak * min(1.0, time / rising) if rising > 0 else 0.0
    else:
        learning_rate = cosine(peak, settings.learning_rate_end, (time - settings.warmup) / (epochs - settings.warmup))
    return StepValues(
        learning_rate,
        cosine(settings.weight_decay, settings.weight_decay_end, time / epochs),
        cosine(1 - settings.momentum, 0.0, time / epochs),
        epoch < settings.frozen,
    )


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine wave from start to end, at a share of the way from 0 to 1."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))
