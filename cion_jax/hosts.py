"""Many processes, one job: how they find each other, who does what, and what all of them then know.

JAX runs a program over the devices of all processes (hosts). Work that is not one program, such as embedding images or
comparing tiles, is shared out by hand: each host does its `local_part` on its own devices, and `all_gather` gives the
results of all hosts to all. A single process does everything, and nothing here costs anything.
"""

import os
import platform
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils

from cion_jax.atomic import sole_writer
from cion_jax.config import Hosts
from cion_jax.errors import UserError
from cion_jax.roll_call import Facts, Place, Watch, call_roll

Work = TypeVar("Work", list[Any], range)

#: Variables in which launchers say how many processes there are; without them, or with 1, nobody is waited for.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
#: The variable in which GKE names all hosts of a TPU slice.
_WORKERS = "TPU_WORKER_HOSTNAMES"
#: Seconds without a sign of life after which a host counts as dead, and the job ends.
PATIENCE = 60
#: Seconds in which an exchange that failed may still be explained by the one whose end broke it.
_HEARSAY = 2
#: Bytes that hosts exchange at once, all together.
CHUNK_BYTES = 1 << 26


@contextmanager
def join_job(hosts: Hosts, facts: Callable[[], Facts] = dict) -> Iterator[None]:
    """Join the other processes of the job, if there are any; call this before anything else of JAX is used.

    With others, an error within ends this process at once, and they are told: an orderly end would wait for them, and
    they may be waiting for this one. A process that ends without a word, or a machine that is silent for `PATIENCE`,
    ends the others as well.

    Args:
        hosts: How processes find each other.
        facts: Gives, if there are others, what must be the same in all of them, by name. It is called before anybody is
            waited for, so that what it refuses ends this process at once.
    """
    place = _place(hosts)
    if place is None or place.processes == 1:
        yield
        return
    watch = _join(place, _software() | facts(), hosts.join_timeout)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, UserError | OSError | KeyboardInterrupt):
            time.sleep(_HEARSAY)
            if not isinstance(error, jax.errors.JaxRuntimeError):
                traceback.print_exc()
        reason = _describe(error)
        watch.leave(f"process {place.process} ({socket.gethostname()}) has ended: {reason}")
        _end(place, reason)
    watch.leave()


def _place(hosts: Hosts) -> Place | None:
    """Where processes meet, by the settings or by what a launcher says; None where there is only this one."""
    given = (hosts.coordinator, hosts.processes, hosts.process)
    if all(value is None for value in given):
        return _launched_place(hosts.join_timeout) if hosts.join or _launched() else None
    address, processes, process = given
    if address is None or processes is None or process is None:
        raise UserError("--coordinator, --processes and --process belong together; give all three, or none")
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise UserError(f"--coordinator {address}: give HOST:PORT, such as 10.0.0.1:4567")
    if hosts.join_timeout < 1:
        raise UserError(f"--join-timeout {hosts.join_timeout}: give a number of seconds, at least 1")
    if not 0 <= process < processes:
        raise UserError(f"--process {process} of --processes {processes}: number them from 0 to {processes - 1}")
    return Place(address, processes, process)


def _launched_place(seconds: int) -> Place:
    """What a launcher says, as JAX reads it."""
    try:
        address, processes, process, _ = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, seconds
        )
    except (ValueError, TypeError, RuntimeError, KeyError, OSError) as error:
        raise UserError(f"this process cannot join the others ({_first_line(error)}); see docs/scale.md") from None
    if address is None or processes is None or process is None:
        raise UserError(
            "this process cannot join the others (there are several, but JAX does not know this launcher); give "
            "--coordinator, --processes and --process"
        )
    return Place(address, processes, process)


def _join(place: Place, facts: Facts, seconds: int) -> Watch:
    """Call the roll, and start JAX's service of many processes when all are there."""

    def say(text: str) -> None:
        print(f"cion: process {place.process} of {place.processes}: {text}", file=sys.stderr, flush=True)

    watch = Watch(call_roll(place, facts, seconds, say), partial(_end, place))
    try:
        jax.distributed.initialize(
            place.address,
            place.processes,
            place.process,
            initialization_timeout=max(seconds, PATIENCE),
            heartbeat_timeout_seconds=PATIENCE,
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"this process cannot join the others ({_first_line(error)}); see docs/scale.md") from None
    return watch


def _software() -> Facts:
    """What is compared of the software: its programs must be the same."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {name: version(name) for name in ("cion-jax", "jax", "jaxlib")} | {"python": python}


_ending = threading.Lock()


def _end(place: Place, reason: str) -> NoReturn:
    """End this process, and say why: once, whoever finds out first."""
    _ending.acquire()
    print(f"cion: process {place.process} of {place.processes}: {reason}", file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(1)


def _launched() -> bool:
    """Whether a launcher has started several processes."""
    counts = [os.environ.get(name, "1") for name in _COUNTS]
    return any(count.isdigit() and int(count) > 1 for count in counts) or "," in os.environ.get(_WORKERS, "")


def is_main() -> bool:
    """Whether this is process 0, which writes what is written once."""
    return jax.process_index() == 0


def is_single_process() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def main_writes(folder: Path) -> AbstractContextManager[None]:
    """Keep other jobs from writing to a folder, which is there: its main process holds it."""
    return sole_writer(folder) if is_main() else nullcontext()


def on_main(work: Callable[[], object]) -> None:
    """Let process 0 do something, such as writing a file; when this returns in any process, it is done.

    An error in it stops all processes.
    """
    error = None
    if is_main():
        try:
            work()
        except Exception as raised:
            error = raised
    failed = all_gather(np.array([error is not None]))
    if error is not None:
        raise error
    if failed.any():
        raise UserError("process 0 cannot go on; it says why")


def barrier() -> None:
    """Wait until all processes are here."""
    all_gather(np.zeros(1, np.uint8))


def local_part(work: Work) -> Work:
    """This host's part of a list of work: a run of it; the parts of two hosts differ by one item at most."""
    bounds = [len(work) * host // jax.process_count() for host in range(jax.process_count() + 1)]
    return work[bounds[jax.process_index()] : bounds[jax.process_index() + 1]]


def all_gather(part: np.ndarray) -> np.ndarray:
    """The parts of all hosts, one behind the other along the first axis, on every host.

    Parts may be of different lengths. They travel as bytes, in chunks: JAX would make 32 bits of 64, and hold all of
    it on a device.
    """
    if is_single_process():
        return part
    mine = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    # Sizes may need more than 32 bits: they travel in two numbers.
    sizes = [int(high) << 20 | int(low) for high, low in _from_all(np.array(divmod(len(mine), 1 << 20), np.int32))]
    begins = np.cumsum([0, *sizes])
    longest = max(sizes)
    most = CHUNK_BYTES // len(sizes)
    whole = np.empty(begins[-1], np.uint8)
    for start in range(0, longest, most):
        # All hosts send chunks of one length; behind the end of a shorter part there are zeros.
        chunk = np.zeros(min(most, longest - start), np.uint8)
        chunk[: max(len(mine) - start, 0)] = mine[start : start + most]
        for begin, size, received in zip(begins, sizes, _from_all(chunk), strict=False):
            whole[begin + start : begin + size][: len(received)] = received[: max(size - start, 0)]
    return whole.view(part.dtype).reshape(-1, *part.shape[1:])


def _from_all(array: np.ndarray) -> np.ndarray:
    """(hosts, ...) the arrays of all hosts, which must be of one shape."""
    return np.asarray(multihost_utils.process_allgather(array))


def _describe(error: BaseException) -> str:
    """An error in one line, with what to do."""
    if isinstance(error, UserError | OSError):
        return str(error)
    return f"{_first_line(error)}; start all processes again: a run goes on from its last checkpoint"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
