"""The folder of a run belongs to one set of settings, and says what it was begun with.

RUN/settings.json    what was asked for
RUN/origin.json      which data, from where, on which machine, with which software
"""

import dataclasses
import itertools
import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from cion_jax.atomic import claim_folder, write_atomically
from cion_jax.config import AUTO, Training
from cion_jax.data.files import Folder, is_remote, located
from cion_jax.errors import UserError
from cion_jax.untrusted import read_json

#: Where runs are kept whose folder nobody has named.
RUNS = Path("runs")
SETTINGS, ORIGIN = "settings.json", "origin.json"
#: The teacher's weights, anew after each epoch.
TEACHER = "teacher.safetensors"
#: The weights of a run of fine-tuning, anew after each epoch; and those of its best epoch, where one is chosen.
FINETUNED = "finetuned.safetensors"
BEST = "best.safetensors"
#: The weights that a run is known by: the first of these that it has.
WEIGHTS = (BEST, FINETUNED, TEACHER)
_SOFTWARE = ("cion-jax", "jax", "jaxlib", "flax", "optax", "numpy")
#: What a run may be gone on with otherwise: the numbers that come out do not depend on it but for rounding.
_FREE = {
    "keep",
    "keep_every",
    "checkpoint_steps",
    "threads",
    "model_axis",
    "remat",
    "block",
    "evaluate",
    "evaluate_every",
}


def claim(out: Path, settings: Training) -> None:
    """Make the folder a run's own, or see that it is the run of these settings."""
    path = out / SETTINGS
    usual = _asked(type(settings)())
    claim_folder(out, [path], lambda note: _check_same(out, note, _asked(settings), usual))
    text = json.dumps(dataclasses.asdict(settings), indent=1, default=str) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text))


def own_folder(name: str, settings: Training, data: Folder) -> Path:
    """The folder of a run that nobody has named: the first of runs/NAME-1, NAME-2, ... that is free, or is this run."""
    folders = (RUNS / f"{name}-{number}" for number in itertools.count(1))
    return next(out for out in folders if not out.exists() or _is_begun(out, settings, data))


def _is_begun(out: Path, settings: Training, data: Folder) -> bool:
    """Whether a folder holds the run of these settings on this data."""
    try:
        _check_same(out, out / SETTINGS, _asked(as_begun(out, settings)), _asked(type(settings)()))
        return not (out / ORIGIN).exists() or _read(out / ORIGIN).get("data") == _place(data)
    except UserError:
        return False


def as_begun(out: Path, settings: Any) -> Any:
    """Settings whose batch and parts, where they are auto, are those that the run in a folder was begun with."""
    if AUTO not in (settings.batch, settings.accumulate) or not (out / SETTINGS).exists():
        return settings
    begun = _read(out / SETTINGS)
    numbers = {name: begun.get(name) for name in ("batch", "accumulate") if getattr(settings, name) == AUTO}
    if not all(isinstance(number, int) for number in numbers.values()):
        raise UserError(f"{out / SETTINGS}: unreadable ({numbers}); name another folder")
    return dataclasses.replace(settings, **numbers)


def _check_same(out: Path, path: Path, asked: dict[str, Any], usual: dict[str, Any]) -> None:
    """Refuse to go on with a run that was begun with other settings; those newer than the run were as usual."""
    begun = usual | _read(path)
    free = _FREE - ({"evaluate"} if asked.get("select") == "test" else set())
    names = sorted(name for name in asked.keys() | begun.keys() if asked.get(name) != begun.get(name))
    if changed := [f"{name} was {begun.get(name)}, not {asked.get(name)}" for name in names if name not in free]:
        raise UserError(
            f"{out}: begun with other settings ({'; '.join(changed)}); keep to those, or name another folder"
        )


def _read(path: Path) -> dict[str, Any]:
    return flat(read_json(path, "name another folder"))


def note_origin(out: Path, data: Folder, fingerprint: str) -> None:
    """Write down what a run is begun with, unless that was done when it was."""
    path = out / ORIGIN
    if path.exists():
        return
    devices = jax.devices()
    environment = {
        "python": platform.python_version(),
        **{name: version(name) for name in _SOFTWARE},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "host": f"{len(os.sched_getaffinity(0))} cores ({platform.machine()})",
    }
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    places = {"data": _place(data), "folder": str(out.resolve()), "began_in": str(Path.cwd())}
    origin = places | {"fingerprint": fingerprint, "environment": environment, "began": began}
    write_atomically(path, lambda aside: aside.write_text(json.dumps(origin, indent=1) + "\n"))


def _place(data: Folder) -> str:
    return str(data) if is_remote(data) else str(Path(data).resolve())


def _asked(settings: Training) -> dict[str, Any]:
    return flat(dataclasses.asdict(settings))


def places(run: Path, origin: Mapping[str, Any], named: Folder) -> Iterator[Path]:
    """Where that may lie now which a run was told of: where it was, then at the same place beside the run's folder.

    Args:
        run: The run's folder, where it is now.
        origin: What stands in its ORIGIN; older ones do not tell where they were begun.
        named: A path or a URL; a relative path counts from where the run was begun.
    """
    if is_remote(named):
        yield located(named)
        return
    then = Path(origin.get("began_in", ""), named)
    yield then
    if "folder" in origin:
        yield run / os.path.relpath(then, origin["folder"])


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, those of inner groups beside the others, as JSON has them."""
    result: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(settings, default=str)).items():
        result |= flat(value) if isinstance(value, dict) else {name: value}
    return result
