"""What the commands share that train: join the other processes, forecast or train, and say how it ended."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from etils import epath

from cion_jax.config import Hosts

if TYPE_CHECKING:
    from cion_jax.hosts import Facts
    from cion_jax.run.method import Method


def run_training(
    make: Callable[[], "Method"],
    facts: Callable[[], "Facts"],
    data: epath.Path,
    out: Path,
    *,
    hosts: Hosts,
    profile: int,
    dry_run: bool,
    done: str,
) -> int:
    """Train, or with `dry_run` only tell what that would be; the command's exit code.

    Args:
        make: Makes the method, once the processes have found each other.
        facts: Gives what all processes must have in common; refuses what it can.
        data: What is learnt from.
        out: The run's folder.
        hosts: How processes find each other.
        profile: Steps to trace.
        dry_run: Whether nothing is trained.
        done: What is printed at the end.
    """
    from cion_jax.hosts import is_main, join_job
    from cion_jax.run.forecast import forecast
    from cion_jax.run.trainer import train

    def all_facts() -> "Facts":
        return facts() | {"the folder of the run": str(out.absolute()), "dry_run": str(dry_run)}

    with join_job(hosts, all_facts):
        if dry_run:
            lines = forecast(make(), data)
            print("\n".join(lines if is_main() else []))
            return 0
        if is_main() and (cache := os.environ.get("JAX_COMPILATION_CACHE_DIR")):
            print(f"{cache}: compiled programs are kept here", file=sys.stderr)
        finished = train(make(), data, out, profile_steps=profile)
        if is_main():
            print(done if finished else f"{out}: stopped with a checkpoint; repeat the command to go on")
    return 0 if finished else 143
