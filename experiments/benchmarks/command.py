"""How a benchmark is called: its options are those of its function, and a user's mistake is one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from tyro.conf import OmitArgPrefixes

from cion_jax.errors import UserError
from cion_jax.xla import avoid_faults


def command(main: Callable[..., Any]) -> None:
    """Call it with the command line's options, and end the process with what it returns."""
    module = _module()
    avoid_faults()
    try:
        sys.exit(tyro.cli(main, prog=f"python -m {module}", config=(OmitArgPrefixes,)))
    except UserError as error:
        sys.exit(f"{module.rsplit('.', 1)[-1]}: {error}")


def _module() -> str:
    """The module that `python -m` was asked to run."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem
