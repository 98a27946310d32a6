"""Drawn pedestrians under several cameras, tracked with mistakes: data that is free, endless and fully known."""

import numpy as np

from cion_jax.config import World
from tfrecords_tools.world.settings import check
from tfrecords_tools.world.source import WorldSource
from tfrecords_tools.world.splits import plan_test, plan_train

__all__ = ["WorldSource", "build", "truth"]


def build(world: World) -> dict[str, WorldSource]:
    """The splits of a world: train without identities, query and gallery with those of held-out people."""
    check(world)
    plans = {"train": plan_train(world), **plan_test(world)}
    return {split: WorldSource(world, split, 0, labels, shots) for split, (labels, shots) in plans.items()}


def truth(source: WorldSource | World) -> np.ndarray:
    """Whom each image shows: a row of the split's table of people, or -1 for nobody; a world means its train split."""
    if isinstance(source, World):
        source = build(source)["train"]
    return source.shots["person"].astype(np.int64)
