"""The rows of all experiment files by name: what `cion pretrain EXPERIMENT` looks through."""

import difflib
import runpy
from pathlib import Path
from typing import Any

from cion_jax.config import Pretraining
from cion_jax.errors import UserError
from experiments import convnext, debug, edgenext, fastvit, ghostnet, repvit, resnet, swin, vit, volo

_CHAPTERS = (resnet, convnext, edgenext, ghostnet, repvit, fastvit, vit, swin, volo, debug)

#: Settings by name; a name is that of the backbone, but for `debug`.
ROWS: dict[str, Pretraining] = {name: row for chapter in _CHAPTERS for name, row in chapter.EXPERIMENTS.items()}


def find(name: str) -> Pretraining:
    """The row of a name, or the `settings` that a Python file defines."""
    if name.endswith(".py"):
        settings = read(Path(name))
        if not isinstance(settings, Pretraining):
            raise UserError(f"{name}: `settings` is {settings!r}; make it a cion_jax.config.Pretraining")
        return settings
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ROWS)}, or a .py file of settings"
        )
        raise UserError(f"no experiment is called {name!r}; {hint}")
    return ROWS[name]


def read(path: Path) -> Any:
    """What a Python file calls `settings`; None where it does not."""
    try:
        return runpy.run_path(str(path)).get("settings")
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
