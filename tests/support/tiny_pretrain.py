"""The tiny pre-training, in this process or in one of its own, and what it leaves in its folder."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cion_jax.cli import main
from cion_jax.config import Writing
from cion_jax.data.records import Records
from cion_jax.data.writer import write_dataset
from cion_jax.models.zoo import ZOO
from cion_jax.pretrain.state import TrainState
from cion_jax.run import trainer
from cion_jax.run.checkpoints import Checkpoint, Checkpoints
from cion_jax.run.method import abstract_state
from cion_jax.run.pretraining import PretrainingMethod, model_of
from cion_jax.run.sharding import make_mesh
from processes import HANGS, surroundings
from shared_step import shared_step
from sources import Blocks
from tiny import FAMILY, SETTINGS

RUN = Path(__file__).parent / "tiny_run.py"
ONE_STAGE = replace(SETTINGS, epochs=2, instances=(2,), stages=(0,))

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Process:
    """Runs `cion pretrain` with the tiny settings in a process of its own; all of them share what they compile."""

    data: Path
    cache: Path

    def __call__(self, out: Path, *options: str, devices: int = 1, **plan: Any) -> Result:
        command = ["pretrain", str(RUN), "--data", str(self.data), "--out", str(out), *options]
        return subprocess.run(
            [sys.executable, "-W", "error", str(RUN), json.dumps(plan), *command],
            env=surroundings(self.cache, devices),
            capture_output=True,
            text=True,
            timeout=HANGS,
        )


def template() -> TrainState:
    method = PretrainingMethod(SETTINGS, model_of(SETTINGS))
    return abstract_state(method, make_mesh(1, 1))


def newest(out: Path) -> Checkpoint:
    with Checkpoints(out, 9, 0) as checkpoints:
        result, complaints = checkpoints.restore(template())
    assert result is not None and not complaints
    return result


def saved(out: Path) -> list[int]:
    return sorted(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit())


def cion(out: Path, data: Path | str, *options: str) -> int:
    one = ("--instances", "2", "--stages", "0", "--epochs", "2")
    return main(["pretrain", str(RUN), "--data", str(data), "--out", str(out), *(options or one)])


def nobody(tmp_path: Path) -> Path:
    """A folder whose records do not know who is who."""

    class Strangers(Blocks):
        @property
        def labels(self) -> np.ndarray:
            rows = super().labels
            rows["identity"] = -1
            return rows

    write_dataset(tmp_path / "nobody", {"train": Strangers(40)}, Writing(workers=1))
    return tmp_path / "nobody"


def damage(folder: Path, number: int) -> None:
    records = Records(folder)
    row = records.index[number]
    with records.shard_path(row["shard"]).open("rb+") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(b"damage")


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """The tiny backbone in the zoo, and `shared_step` in the trainer."""
    patch.setitem(ZOO, "tiny", FAMILY)
    patch.setattr(trainer, "jit_step", shared_step)
