"""Services that show a run's numbers elsewhere, beside its own files: Weights & Biases, MLflow and Trackio.

RUN/tracking.json    the run's id at each service, by which a resumed run goes on there

A resumed run repeats some steps, to the same numbers, so that nothing need be taken back. A service that fails is told
of once and left alone: no training ends by it.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from cion_jax.atomic import write_atomically
from cion_jax.errors import UserError
from cion_jax.untrusted import read_json

Service = Literal["wandb", "mlflow", "trackio"]
#: Takes a step's number and its values.
Log = Callable[[int, Mapping[str, float]], object]

TRACKING = "tracking.json"
#: Where runs are put, where the service's own environment does not say it.
PROJECT = "cion"


class _Tracker(NamedTuple):
    """An open run at a service."""

    identifier: str
    log: Log
    finish: Callable[[], object]


def check_installed(services: Sequence[Service]) -> None:
    """Refuse services whose package is not here."""
    if missing := [name for name in services if find_spec(name) is None]:
        extras = ",".join(missing)
        raise UserError(f"--log {' '.join(missing)}: not installed; pip install 'cion-jax[{extras}]'")


@contextmanager
def tracked(
    services: Sequence[Service], out: Path, config: Mapping[str, Any], say: Callable[[str], object]
) -> Iterator[Log]:
    """Open a run at each service while the block lasts; call what is yielded for each step.

    Args:
        services: Which ones.
        out: The run's folder, after which it is called there.
        config: Settings by name, which are shown beside the numbers.
        say: Shows a line to the user.
    """
    known = _identifiers(out)
    opened = {name: _open(name, out, config, known.get(name)) for name in services}
    if opened:
        known |= {name: tracker.identifier for name, tracker in opened.items()}
        write_atomically(out / TRACKING, lambda path: path.write_text(json.dumps(known, indent=1) + "\n"))

    def attempt(name: Service, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # each service has errors of its own
            opened.pop(name)
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            say(f"cion: {name} fails ({why}); nothing more goes there, {out} has everything")

    def log(step: int, values: Mapping[str, float]) -> None:
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        for name, tracker in list(opened.items()):
            attempt(name, lambda tracker=tracker: tracker.log(step, finite))  # type: ignore[misc]

    try:
        yield log
    finally:
        for name, tracker in list(opened.items()):
            attempt(name, tracker.finish)


def _open(name: Service, out: Path, config: Mapping[str, Any], known: str | None) -> _Tracker:
    try:
        return _OPEN[name](out, config, known)
    except Exception as error:  # each service has errors of its own
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"--log {name}: cannot begin ({why}); see its address and keys, or leave it out") from None


def _identifiers(out: Path) -> dict[str, str]:
    path = out / TRACKING
    kinds = dict.fromkeys(_OPEN, str)
    return read_json(path, "remove it, to log as a new run", kinds) if path.exists() else {}


def _open_wandb(out: Path, config: Mapping[str, Any], known: str | None) -> _Tracker:
    import wandb

    identifier = known or uuid4().hex[:16]
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=identifier,
        name=out.name,
        dir=str(out),
        config=dict(config),
        resume="allow",
    )
    return _Tracker(identifier, lambda step, values: run.log(dict(values), step=step), run.finish)


def _open_mlflow(out: Path, config: Mapping[str, Any], known: str | None) -> _Tracker:
    import mlflow

    if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        mlflow.set_experiment(PROJECT)
    run = mlflow.start_run(run_id=known, run_name=None if known else out.name)
    if known is None:
        mlflow.log_params(dict(config))
    return _Tracker(
        run.info.run_id,
        lambda step, values: mlflow.log_metrics(dict(values), step=step, synchronous=False),
        mlflow.end_run,
    )


def _open_trackio(out: Path, config: Mapping[str, Any], known: str | None) -> _Tracker:
    import trackio

    identifier = known or f"{out.name}-{uuid4().hex[:8]}"
    trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT), name=identifier, config=dict(config), resume="allow"
    )
    return _Tracker(identifier, lambda step, values: trackio.log(dict(values), step=step), trackio.finish)


_OPEN: dict[str, Callable[[Path, Mapping[str, Any], str | None], _Tracker]] = {
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
    "trackio": _open_trackio,
}
