"""The weights that a command is given: the folder of a run, or a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.weights.file import Weights


def weights_of(source: Path) -> "Weights":
    """Load the teacher of a run of `cion pretrain`, the best weights of a run of fine-tuning, or a file of weights."""
    from cion_jax.weights.file import load

    return load(file_of(source))


def file_of(source: Path) -> Path:
    """The file of weights that a command is given, or that a run has."""
    from cion_jax.run.run_dir import WEIGHTS

    if not source.is_dir():
        return source
    there = [source / name for name in WEIGHTS if (source / name).exists()]
    if not there:
        names = ", ".join(WEIGHTS)
        raise UserError(f"{source}: not a run (none of {names} is there); name one of `cion pretrain`, or weights")
    return there[0]
