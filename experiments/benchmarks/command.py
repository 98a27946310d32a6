"""How a benchmark is called: its options from its function's, and a user's mistake told in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from cion_jax.errors import UserError
from cion_jax.xla import avoid_faults


def command(main: Callable[..., Any]) -> None:
    """Call it with what the command line says, and end the process with what it returns."""
    name = Path(sys.argv[0]).stem
    avoid_faults()
    try:
        sys.exit(tyro.cli(main, prog=f"python -m experiments.benchmarks.{name}"))
    except UserError as error:
        sys.exit(f"{name}: {error}")
