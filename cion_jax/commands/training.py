"""What the commands share that train: join the other processes, forecast or train, and say how it ended."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from etils import epath
from tyro.conf import arg

from cion_jax.config import Hosts, Training
from cion_jax.errors import UserError
from cion_jax.run.tracking import Service, check_installed

if TYPE_CHECKING:
    import jax

    from cion_jax.data.files import Folder
    from cion_jax.hosts import Facts
    from cion_jax.run.method import Method

Settings = TypeVar("Settings", bound=Training)

#: What --help says of OUT.
OUT = "The run's folder. Without it runs/NAME-1, or the first number that is free or has begun this very run."
_FOR = "With --dry-run: compile for devices that are not there, such as v5e:4x4, v5p:2x2x2 or h100:1x1x8."


@dataclass(frozen=True)
class Mode:
    """Whether to train, or only to tell what that would be."""

    log: tuple[Service, ...] = ()
    """Where the journal's numbers are shown too, beside metrics.jsonl and TensorBoard: wandb, mlflow, trackio. Each is
    an extra of this package, and takes its address and keys from its own environment variables."""
    profile: int = 0
    """Trace so many steps, after the first few, for TensorBoard."""
    dry_run: bool = False
    """Compile the step, print steps, memory and the batch that fits, and end; nothing is written."""
    target: Annotated[str | None, arg(name="for", metavar="DEVICES", help=_FOR)] = None


def run_folder(out: Path | None, name: str, settings: Settings, data: "Folder") -> tuple[Path, Settings]:
    """The folder of a run, and its settings with the numbers that it was begun with where they are auto.

    Args:
        out: The folder that was named, if one was.
        name: What its own is called after.
        settings: What is asked for.
        data: What is learnt from.
    """
    from cion_jax.run.run_dir import as_begun, own_folder

    out = out or own_folder(name, settings, data)
    return out, as_begun(out, settings)


def run_training(
    make: Callable[["Sequence[jax.Device] | None"], "Method"],
    facts: Callable[[], "Facts"],
    data: epath.Path,
    out: Path,
    *,
    hosts: Hosts,
    mode: Mode,
    done: str,
) -> int:
    """Train, or with `dry_run` only tell what that would be; the command's exit code.

    Args:
        make: Makes the method for devices, or for those that are there, once the processes have found each other.
        facts: Gives what all processes must have in common; refuses what it can.
        data: What is learnt from.
        out: The run's folder.
        hosts: How processes find each other.
        mode: Whether to train.
        done: What is printed at the end.
    """
    from cion_jax.hosts import is_main, join_job
    from cion_jax.programs.target import absent_devices
    from cion_jax.run.forecast import forecast
    from cion_jax.run.trainer import train

    if mode.target and not mode.dry_run:
        raise UserError(f"--for {mode.target}: only --dry-run compiles for devices that are not there; give both")

    def all_facts() -> "Facts":
        return facts() | {"the folder of the run": str(out.absolute()), "dry_run": str(mode.dry_run)}

    check_installed(mode.log)
    with join_job(hosts, all_facts):
        if mode.dry_run:
            devices = absent_devices(mode.target) if mode.target else None
            lines = forecast(make(devices), data, devices)
            print("\n".join(lines if is_main() else []))
            return 0
        if is_main() and (cache := os.environ.get("JAX_COMPILATION_CACHE_DIR")):
            print(f"{cache}: compiled programs are kept here", file=sys.stderr)
        finished = train(make(None), data, out, profile_steps=mode.profile, services=mode.log)
        if is_main():
            print(done if finished else f"{out}: stopped with a checkpoint; repeat the command to go on")
    return 0 if finished else 143
