"""`cion` with the toy network in its zoo, in a process of its own.

    python tests/support/finetuned_run.py PLAN COMMAND...

PLAN is a JSON object:
    killed     the step after which the process, if it keeps no journal, kills itself
    without    a module that it does not have
    apart      images are embedded one by one for clusters
    labels     a run whose clusters are taken after the first epoch, whatever its own features make
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import without_torch  # noqa: F401  # before all that follows
from cion_jax.evaluate.embed import embed_all
from cion_jax.run import clusters, damaged
from cion_jax.run.journal import Silence
from finetuned import cion, stand_in


def kill_after(number: int) -> None:
    def recording(journal: Silence, step: int, *rest: Any) -> None:
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Silence.record = recording  # type: ignore[method-assign, assignment]


def embed_apart() -> None:
    """One image at a time, on the first device: how a network rounds depends on how many images and devices share a
    program, and on an image's place among them."""

    def embedding(*arguments: Any, **options: Any) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            first = jax.local_devices()[:1]
            patch.setattr(jax, "local_devices", lambda: first)
            patch.setattr(jax, "local_device_count", lambda: 1)
            return embed_all(*arguments, batch=1, **options)

    damaged.embed_all = embedding


def take_clusters(run: str) -> None:
    """Those of another run from its second epoch on."""
    find = clusters.dbscan
    _, *later = sorted(Path(run, "labels").glob("*.npz"))
    epochs = iter([None, *(np.load(path)["labels"] for path in later)])

    def finding(*arguments: Any) -> np.ndarray:
        own = find(*arguments)
        taken = next(epochs)
        return own if taken is None else taken

    clusters.dbscan = finding


if __name__ == "__main__":
    plan, command = json.loads(sys.argv[1]), sys.argv[2:]
    if "killed" in plan:
        kill_after(plan["killed"])
    if "without" in plan:
        sys.modules[plan["without"]] = None  # type: ignore[assignment]
    if "apart" in plan:
        embed_apart()
    if "labels" in plan:
        take_clusters(plan["labels"])
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        sys.exit(cion(*command))
