"""`cion` with the tiny backbone in its zoo, in a process of its own; as an experiment, the tiny settings.

    python tests/support/tiny_run.py PLAN COMMAND...

PLAN is a JSON object:
    bits      if true, --relabel makes labels out of the teacher's bits
    at        a time in epochs, at which the process
    signal    sends itself this signal,
    writing   but not before a checkpoint is half written, or
    full      can write only small files, as soon as there is a checkpoint
"""

import json
import os
import resource
import signal
import sys
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import without_torch  # noqa: F401  # before all that follows
from cion_jax.cli import main
from cion_jax.data.records import Records
from cion_jax.models.zoo import ZOO
from cion_jax.run import pretraining
from cion_jax.run.journal import Journal
from tiny import FAMILY, SETTINGS

settings = SETTINGS


def out_of_bits(teacher: Any, labels: np.ndarray) -> np.ndarray:
    """Other people and another number of batches for a teacher that differs in a single bit."""
    bits = zlib.crc32(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(teacher)))
    people = np.random.default_rng(bits).integers(-1, 20, len(labels))
    return np.where(labels % 2 == bits % 2, labels, people)


def by_bits(settings: Any, model: Any, teacher: Any, records: Records, *rest: Any) -> np.ndarray:
    """In the place of `relabel`: labels that a single bit of the teacher changes."""
    return out_of_bits(teacher, np.array(records.index["tracklet"], np.int64))


def end_when_half_written(checkpoints: Path, number: int) -> None:
    while not any(path.is_file() for path in checkpoints.glob("*tmp*/state*/**/*")):
        pass
    os.kill(os.getpid(), number)


def fill_disk(checkpoints: Path) -> None:
    while not any(path.name.isdigit() for path in checkpoints.iterdir()):
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


def act_at(time: float, act: Callable[[], object]) -> None:
    """Do something as soon as that time is in the journal."""
    record, done = Journal.record, threading.Event()

    def recording(journal: Journal, step: int, epoch: float, *rest: Any) -> None:
        record(journal, step, epoch, *rest)
        if epoch >= time and not done.is_set():
            done.set()
            act()

    Journal.record = recording  # type: ignore[method-assign, assignment]


def action(plan: dict[str, Any], checkpoints: Path) -> Callable[[], object]:
    if "full" in plan:
        return partial(fill_disk, checkpoints)
    number = getattr(signal, plan["signal"])
    if "writing" in plan:
        return threading.Thread(target=end_when_half_written, args=(checkpoints, number), daemon=True).start
    return partial(os.kill, os.getpid(), number)


if __name__ == "__main__":
    plan, command = json.loads(sys.argv[1]), sys.argv[2:]
    ZOO["tiny"] = FAMILY
    if plan.get("bits"):
        pretraining.relabel = by_bits
    if "at" in plan:
        act_at(plan["at"], action(plan, Path(command[command.index("--out") + 1], "checkpoints")))
    sys.exit(main(command))
