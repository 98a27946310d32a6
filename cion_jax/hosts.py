"""Many processes, one job: how they find each other, who does what, and what all of them then know.

JAX runs a program over the devices of all processes (hosts). Work that is not one program, such as embedding images or
comparing tiles, is shared out by hand: each host does its `local_part` on its own devices, and `all_gather` gives the
results of all hosts to all. A single process does everything, and nothing here costs anything.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cion_jax.config import Hosts
from cion_jax.errors import UserError

Work = TypeVar("Work", list[Any], range)

#: Variables in which launchers say how many processes there are; without them, or with 1, nobody is waited for.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
#: The variable in which GKE names all hosts of a TPU slice.
_WORKERS = "TPU_WORKER_HOSTNAMES"
#: Seconds without a sign of life after which a host counts as dead, and the job ends.
PATIENCE = 60
#: Bytes that hosts exchange at once, all together.
CHUNK_BYTES = 1 << 26


@contextmanager
def join_job(hosts: Hosts) -> Iterator[None]:
    """Join the other processes of the job, if there are any; call this before anything else of JAX is used.

    With others, an error within ends this process at once: an orderly end would wait for them, and they may be waiting
    for this one. They notice at the next exchange, or after `PATIENCE`.
    """
    _join(hosts)
    try:
        yield
    except BaseException as error:
        if is_single_process():
            raise
        if not isinstance(error, UserError | OSError | jax.errors.JaxRuntimeError):
            traceback.print_exc()
        print(f"cion: process {jax.process_index()} of {jax.process_count()}: {_describe(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def _join(hosts: Hosts) -> None:
    """Start JAX's service of many processes, where settings or the environment say that there are many."""
    given = (hosts.coordinator, hosts.processes, hosts.process)
    if any(value is not None for value in given):
        if None in given:
            raise UserError("--coordinator, --processes and --process belong together; give all three, or none")
    elif not (hosts.join or _launched()):
        return
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=PATIENCE)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"this process cannot join the others ({reason}); see docs/scale.md") from None


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
    return (
        f"{(str(error) or type(error).__name__).splitlines()[0]}; another process may have ended: see what each "
        "of them says, and start all of them again: a run goes on from its last checkpoint"
    )
