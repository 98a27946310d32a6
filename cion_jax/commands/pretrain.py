"""`cion pretrain`: from records to a backbone."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from etils import epath
from tyro.conf import Positional, arg

from cion_jax.commands.training import OUT, Mode, run_folder, run_training
from cion_jax.config import Hosts, Pretraining
from cion_jax.recipes import RECIPES

_EXPERIMENT = f"What to start from: {', '.join(RECIPES)}, or a Python file that defines `settings`."


def pretrain(
    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT", help=_EXPERIMENT)],
    data: Annotated[Positional[epath.Path], arg(metavar="DATA")],
    out: Annotated[Positional[Path | None], arg(metavar="OUT", help=OUT)] = None,
    settings: Pretraining = Pretraining(),
    hosts: Hosts = Hosts(),
    mode: Mode = Mode(),
) -> int:
    """Pre-train a backbone on the train split of a dataset.

    EXPERIMENT names the settings to start from. Each backbone has the recipe of the CION paper under its own name;
    `small` is for one GPU, `demo` is what `cion demo` trains, and `debug` is for a CPU. The options override them, and
    `cion pretrain EXPERIMENT --help` shows its values. The same command goes on with a run that was stopped or killed,
    to the same numbers. Ends with code 0 when the run is finished, and with 143 when it was asked to stop (SIGTERM,
    Ctrl-C) and has written a checkpoint.

    On many hosts start the same command on each of them, by srun, mpirun or as a job on GKE; docs/scale.md has recipes.

    Args:
        experiment: The name of what `settings` starts from; `cion_jax.cli` has looked it up.
        data: A dataset folder, as `cion data import` or `cion data synth` write it, or its URL in a store (gs://, s3://).
        out: Where the run is kept: checkpoints, teacher.safetensors, metrics.jsonl, tensorboard.
        settings: Settings of the experiment, and their values in it.
        hosts: How processes find each other.
        mode: Whether to train, or only to tell what that would be.
    """
    from cion_jax.commands.sources import file_of
    from cion_jax.run.pretraining import facts, pretraining

    weights = None if settings.weights is None else file_of(settings.weights)
    out, settings = run_folder(out, Path(experiment).stem, replace(settings, weights=weights), data)
    done = f"{out / 'teacher.safetensors'}: {settings.backbone}, for `cion embed` and `cion export`"
    return run_training(
        lambda devices: pretraining(settings, devices),
        lambda: facts(settings, data),
        data,
        out,
        hosts=hosts,
        mode=mode,
        done=done,
    )
