"""`cion pretrain`: from records to a backbone."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from cion_jax.config import Pretraining


def pretrain(
    experiment: Annotated[Positional[str], arg(metavar="EXPERIMENT")],
    data: Path,
    out: Path,
    settings: Pretraining = Pretraining(),
    profile: int = 0,
) -> int:
    """Pre-train a backbone on the train split of a dataset.

    EXPERIMENT is a row of experiments/ (each backbone has one of its name, and `debug` is small enough for a CPU), or a
    Python file that defines `settings`; the options below override it, and show its values after `cion pretrain
    EXPERIMENT --help`. The same command goes on with a run that was stopped or killed, to the same numbers. Ends with
    code 0 when the run is finished, 143 when it was asked to stop (SIGTERM, Ctrl-C) and has written a checkpoint.

    Args:
        experiment: What to start from.
        data: A dataset folder, as `cion data import` or `cion data synth` write it.
        out: The run's folder: checkpoints, teacher.safetensors, metrics.jsonl, tensorboard.
        settings: Overrides.
        profile: Trace so many steps, after the first few, for TensorBoard.
    """
    from cion_jax.pretrain.loop import pretrain

    if pretrain(settings, data, out, profile_steps=profile):
        print(f"{out / 'teacher.safetensors'}: {settings.backbone}, for `cion embed` and `cion export`")
        return 0
    print(f"{out}: stopped with a checkpoint; repeat the command to go on")
    return 143
