"""Being asked to stop, by a scheduler or at the keyboard."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT (Ctrl-C) has come: the first one asks, a second one acts as usual, at once."""
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
        yield asked.is_set
    finally:
        restore()
