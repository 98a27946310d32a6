"""`cion pretrain`: from records to a backbone."""

import os
import sys
from pathlib import Path
from typing import Annotated

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.config import Hosts, Pretraining


def pretrain(
    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")],
    data: epath.Path,
    out: Path,
    settings: Pretraining = Pretraining(),
    hosts: Hosts = Hosts(),
    profile: int = 0,
    dry_run: bool = False,
) -> int:
    """Pre-train a backbone on the train split of a dataset.

    EXPERIMENT is a row of experiments/ (each backbone has one of its name, and `debug` is small enough for a CPU), or a
    Python file that defines `settings`; the options below override it, and show its values after `cion pretrain
    EXPERIMENT --help`. The same command goes on with a run that was stopped or killed, to the same numbers. Ends with
    code 0 when the run is finished, 143 when it was asked to stop (SIGTERM, Ctrl-C) and has written a checkpoint.

    On many hosts start the same command on each of them, by srun, mpirun or as a job on GKE; docs/scale.md has recipes.

    Args:
        experiment: What to start from.
        data: A dataset folder, as `cion data import` or `cion data synth` write it, or its URL in a store (gs://, s3://).
        out: The run's folder: checkpoints, teacher.safetensors, metrics.jsonl, tensorboard.
        settings: Overrides.
        hosts: How processes find each other.
        profile: Trace so many steps, after the first few, for TensorBoard.
        dry_run: Compile, tell steps and memory and the batch that fits, and end; nothing is written.
    """
    from cion_jax.hosts import is_main, join_job
    from cion_jax.run.forecast import forecast
    from cion_jax.run.trainer import pretrain

    with join_job(hosts):
        if dry_run:
            lines = forecast(settings, data)
            print("\n".join(lines if is_main() else []))
            return 0
        if is_main() and (cache := os.environ.get("JAX_COMPILATION_CACHE_DIR")):
            print(f"{cache}: compiled programs are kept here", file=sys.stderr)
        finished = pretrain(settings, data, out, profile_steps=profile)
        if is_main():
            weights = f"{out / 'teacher.safetensors'}: {settings.backbone}, for `cion embed` and `cion export`"
            print(weights if finished else f"{out}: stopped with a checkpoint; repeat the command to go on")
    return 0 if finished else 143
