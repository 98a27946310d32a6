"""Many processes, one job: how they find each other, who does what, and what all of them then know.

JAX runs a program over the devices of all processes (hosts). What is not one program, as embedding images or comparing
tiles, is shared out by hand: each host does a part of it on its own devices, and `gather` gives all of them all of it.
Where there is one process, it does everything, and nothing here costs anything.
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
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from cion_jax.config import Hosts
from cion_jax.errors import UserError

T = TypeVar("T")
Work = TypeVar("Work", list[Any], range)

#: What launchers tell each process: how many there are. Where it is 1, or missing, nobody else is waited for.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
#: What GKE tells a pod of a TPU slice: all of its hosts.
_WORKERS = "TPU_WORKER_HOSTNAMES"
#: Seconds without a sign of life after which a host counts as dead, and the job ends.
PATIENCE = 60
#: Bytes that hosts exchange at once, all together.
CHUNK_BYTES = 1 << 26


@contextmanager
def join_job(hosts: Hosts) -> Iterator[None]:
    """Be one of the job's processes, if there are others; before anything else of JAX is used.

    Where there are, what is raised within ends this process at once: an orderly end would wait for others, who may be
    waiting for this one. Who is left notices at the next exchange, or after `PATIENCE`.
    """
    _join(hosts)
    try:
        yield
    except BaseException as error:
        if is_single_process():
            raise
        if not isinstance(error, UserError | OSError | jax.errors.JaxRuntimeError):
            traceback.print_exc()
        print(f"cion: process {jax.process_index()} of {jax.process_count()}: {_told(error)}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def _join(hosts: Hosts) -> None:
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
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def is_single_process() -> bool:
    """Whether there is no other process."""
    return jax.process_count() == 1


def on_main(work: Callable[[], object]) -> None:
    """Let the leading process do something, as writing a file; when this returns in any of them, it is done.

    What it raises stops all of them.
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
    """This host's part of a list of work: a run of it, as long as the others' but for one."""
    bounds = [len(work) * host // jax.process_count() for host in range(jax.process_count() + 1)]
    return work[bounds[jax.process_index()] : bounds[jax.process_index() + 1]]


def all_gather(part: np.ndarray) -> np.ndarray:
    """The parts of all hosts, one behind the other along the first axis, in all of them.

    Parts may be of different lengths. They travel as bytes, piece by piece: JAX would make 64 bits 32, and hold all of
    it on a device.
    """
    if is_single_process():
        return part
    mine = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    sizes = [int(high) << 20 | int(low) for high, low in _from_all(np.array(divmod(len(mine), 1 << 20), np.int32))]
    begins, longest, most = np.cumsum([0, *sizes]), max(sizes), CHUNK_BYTES // len(sizes)
    whole = np.empty(begins[-1], np.uint8)
    for start in range(0, longest, most):
        piece = np.zeros(min(most, longest - start), np.uint8)
        piece[: max(len(mine) - start, 0)] = mine[start : start + most]
        for begin, size, got in zip(begins, sizes, _from_all(piece), strict=False):
            whole[begin + start : begin + size][: len(got)] = got[: max(size - start, 0)]
    return whole.view(part.dtype).reshape(-1, *part.shape[1:])


def _from_all(array: np.ndarray) -> np.ndarray:
    return np.asarray(multihost_utils.process_allgather(array))


def global_array(shape: tuple[int, ...], place: Sharding, part: Callable[[Any], np.ndarray]) -> jax.Array:
    """An array over the devices of all hosts; `part` makes what one of this host's devices has of it, by its slices.

    `jax.device_put` would ask all hosts whether they put the same, each time.
    """
    where = place.addressable_devices_indices_map(shape)
    parts = jax.device_put([part(index) for index in where.values()], list(where))
    return jax.make_array_from_single_device_arrays(shape, place, parts)


def replicate(numbers: T, mesh: Mesh) -> T:
    """A tree of numbers, as arrays that all devices have."""
    place = NamedSharding(mesh, PartitionSpec())

    def put(number: Any) -> jax.Array:
        value = np.asarray(number, jax.dtypes.canonicalize_dtype(np.result_type(number)))
        return global_array((), place, lambda _: value)

    return jax.tree.map(put, numbers)


def local_copy(tree: T) -> T:
    """Arrays that all devices have, as arrays of this host alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _told(error: BaseException) -> str:
    if isinstance(error, UserError | OSError):
        return str(error)
    return (
        f"{(str(error) or type(error).__name__).splitlines()[0]}; another process may have ended: see what each "
        "of them says, and start all of them again: a run goes on from its last checkpoint"
    )
