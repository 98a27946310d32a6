"""Being asked to stop, by a scheduler or at the keyboard."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from jax.experimental import multihost_utils

from cion_jax.hosts import is_single_process


@contextmanager
def stop_requested() -> Iterator[Callable[[int], bool]]:
    """Whether SIGTERM or SIGINT (Ctrl-C) has come, asked after each step: the first one asks, a second acts at once.

    Processes of one job must stop after the same step: JAX sees to that for SIGTERM, whichever of them it comes to.
    """
    if not is_single_process():
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    usual: dict[int, object] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        restore()
        print("cion: stopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr)

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    if threading.current_thread() is threading.main_thread():  # elsewhere signals are not ours to handle
        usual = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: asked.is_set()
    finally:
        restore()
