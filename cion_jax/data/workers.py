"""Work that is spread over processes, which tell how far they are and end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from typing import Any, TypeVar

from cion_jax.errors import UserError
from cion_jax.terminal import Progress

Task = TypeVar("Task")
_SECONDS = 0.5  # between two looks at how far the processes are

_done: Any = None  # in a process that works: the number of items that all of them have done


def spread(work: Callable[[Task, Progress], object], tasks: Iterator[Task], workers: int, progress: Progress) -> None:
    """Do all tasks; in this process if one worker is asked for, or else with at most two tasks a worker under way.

    Args:
        work: Does a task, and tells its progress. What it returns is not kept.
        tasks: What to do; taken one by one as there is room.
        workers: How many processes.
        progress: Called with the number of further items that are done.
    """
    if workers == 1:  # no process to start
        for task in tasks:
            work(task, progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that holds JAX may never wake up
    done = context.Value("q", 0)
    told = 0
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(done,)) as pool:
        try:
            under_way = {pool.submit(_work, work, task) for task in islice(tasks, 2 * workers)}
            while under_way:
                finished, under_way = wait(under_way, _SECONDS, FIRST_COMPLETED)
                under_way |= {pool.submit(_work, work, task) for task in islice(tasks, len(finished))}
                for future in finished:
                    future.result()
                told, before = done.get_obj().value, told  # no lock: a process may have been killed while it held it
                progress(told - before)
        except BaseException as error:
            for process in multiprocessing.active_children():  # what they leave half-written is never looked at
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise UserError("a writing process was killed, perhaps for lack of memory; run the same command again "
                                "to go on, with fewer --workers") from None  # fmt: skip
            raise


def _work(work: Callable[[Any, Progress], object], task: object) -> None:
    work(task, _advance)


def _advance(items: int) -> None:
    with _done.get_lock():
        _done.value += items


def _start_worker(done: Any) -> None:
    """An interrupt is the parent's to handle, and a worker whose parent was killed must not wait for it for ever."""
    global _done
    _done = done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for_end([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
