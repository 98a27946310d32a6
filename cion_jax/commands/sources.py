"""The weights that a command is given: the folder of a run, or a file."""

from pathlib import Path
from typing import TYPE_CHECKING

from cion_jax.errors import UserError

if TYPE_CHECKING:
    from cion_jax.weights.file import Weights


def weights_of(source: Path) -> "Weights":
    """Load the teacher of a run of `cion pretrain`, or a file of weights."""
    from cion_jax.run.run_dir import TEACHER
    from cion_jax.weights.file import load

    if source.is_dir() and not (source / TEACHER).exists():
        raise UserError(f"{source}: not a run ({TEACHER} is missing); name one of `cion pretrain`, or weights")
    return load(source / TEACHER if source.is_dir() else source)
