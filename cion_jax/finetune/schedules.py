"""Learning rates of fine-tuning as functions of the time in epochs, which is epoch + batch / batches.

`mgn` takes a rate for each step, the other two one for each epoch.
"""

from typing import NamedTuple

import jax
import numpy as np

from cion_jax.config import BnneckOptimization, ClusterContrastOptimization, MgnOptimization
from cion_jax.pretrain.schedules import cosine

Number = float | np.ndarray | jax.Array


class MgnValues(NamedTuple):
    """What changes from step to step of `mgn` from outside."""

    learning_rate: Number
    frozen: bool | np.ndarray | jax.Array
    """Whether trunk and branches stand still."""

    def as_dict(self) -> dict[str, Number]:
        """Those that a journal names."""
        return {"learning_rate": self.learning_rate}


class BnneckValues(NamedTuple):
    """What changes from epoch to epoch of `bnneck` from outside."""

    learning_rate: Number
    bias_learning_rate: Number

    def as_dict(self) -> dict[str, Number]:
        """Those that a journal names."""
        return self._asdict()


class ClusterContrastValues(NamedTuple):
    """What changes from epoch to epoch of `cluster-contrast` from outside."""

    learning_rate: Number

    def as_dict(self) -> dict[str, Number]:
        """Those that a journal names."""
        return self._asdict()


def mgn_values_at(settings: MgnOptimization, epochs: int, epoch: int, batch: int, batches: int) -> MgnValues:
    """The values of one step: batch number `batch` of `batches` in an epoch."""
    time = epoch + batch / batches
    peak = settings.learning_rate
    if time < settings.warmup:
        learning_rate = _line(settings.warmup_start * peak, peak, time / settings.warmup)
    elif time < settings.cosine_start:
        learning_rate = peak
    else:
        share = (time - settings.cosine_start) / (epochs - settings.cosine_start)
        learning_rate = cosine(peak, settings.learning_rate_end, share)
    # The first step after the frozen epochs still belongs to them, as in the published code.
    return MgnValues(learning_rate, settings.frozen > 0 and time <= settings.frozen)


def bnneck_values_at(settings: BnneckOptimization, images: int, epochs: int, epoch: int) -> BnneckValues:
    """The values of one epoch, for `images` images in a batch.

    The cosine runs from the first epoch, below the warm-up, so the rate falls a little where it takes over. Biases
    begin and end at the same rates as weights.
    """
    base = settings.learning_rate * images / 64
    start = settings.warmup_start * base
    end = settings.cosine_end * base

    def rate(peak: float) -> float:
        if epoch < settings.warmup:
            return _line(start, peak, epoch / settings.warmup)
        return cosine(peak, end, epoch / epochs)

    return BnneckValues(rate(base), rate(settings.bias_factor * base))


def cluster_contrast_values_at(settings: ClusterContrastOptimization, epoch: int) -> ClusterContrastValues:
    """The values of one epoch."""
    drops = sum(epoch >= drop for drop in settings.drops)
    return ClusterContrastValues(settings.learning_rate * settings.drop_factor**drops)


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
