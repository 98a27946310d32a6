"""In the place of the trainer's `jit_step`: runs in one process whose programs are equal share one."""

from dataclasses import replace
from typing import Any

from jax.sharding import Mesh

from cion_jax.config import Pretraining
from cion_jax.run.method import jit_step

#: Settings that are not in a step's program: those of every method, of pre-training, and of fine-tuning.
FREE: dict[str, Any] = {"epochs": 0, "epoch_steps": 0, "checkpoint_steps": 0}
PRETRAINING: dict[str, Any] = {"batch": 0, "keep": 0, "labels": None, "level": "identity", "relabel": ()}
FINETUNING: dict[str, Any] = {
    "weights": None,
    "evaluate": None,
    "evaluate_every": 1,
    "select": "validation",
    "skip_damaged": False,
}


def program_of(settings: Any) -> Any:
    """The settings that a step's program depends on."""
    if not isinstance(settings, Pretraining):
        return replace(settings, **FREE, **FINETUNING)
    rates = replace(settings.optimization, learning_rate=0)
    return replace(settings, optimization=rates, **FREE, **PRETRAINING)


def shared_step(
    method: Any,
    instances: int,
    mesh: Mesh,
    state: Any,
    phase: Any = None,
    compiled: dict[Any, Any] = {},  # noqa: B006
) -> Any:
    key = program_of(method.settings), method.model, instances, phase
    if key not in compiled:
        compiled[key] = jit_step(method, instances, mesh, state, phase)
    return compiled[key]
