"""A trace of some steps of a run, for TensorBoard's profile plugin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from cion_jax.run.journal import TENSORBOARD

#: Steps before a profile starts: they compile, and fill the queues that feed the device.
WARM_UP = 3


@contextmanager
def profile(folder: Path, first_step: int, steps: int) -> Iterator[Callable[[int], None]]:
    """Trace so many steps of a run, after some to warm up, for TensorBoard's profile plugin; 0 steps trace nothing.

    Call what is yielded with the number of each step that the device has finished, the first being `first_step`.
    """
    before = first_step + WARM_UP - 1
    tracing = False

    def finished(step: int) -> None:
        nonlocal tracing
        if steps and step == before:
            jax.profiler.start_trace(folder / TENSORBOARD)
            tracing = True
        elif tracing and step == before + steps:
            tracing = False
            jax.profiler.stop_trace()

    try:
        yield finished
    finally:
        if tracing:
            jax.profiler.stop_trace()
