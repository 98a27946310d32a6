"""All that a step of pre-training moves."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from cion_jax.config import Head, Optimization
from cion_jax.models import head
from cion_jax.models.zoo import Backbone, Variables
from cion_jax.pretrain.optimizer import optimizer
from cion_jax.pretrain.schedules import StepValues

#: {"backbone": parameters, "head": parameters}
Params = dict[str, Any]


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: Array
    """Steps done."""
    student: Params
    teacher: Params
    """The exponential moving average of the student's parameters."""
    batch_stats: dict[str, Any]
    """Running batch statistics of student and teacher; empty for backbones without BatchNorm."""
    opt_state: Any
    """The optimizer's state."""
    center: Array
    """(prototypes,): running mean of the teacher's logits."""


def init_state(model: Backbone, projection: Head, optimization: Optimization, key: Array) -> TrainState:
    """A student with fresh weights, and a teacher equal to it."""
    backbone_key, head_key = jax.random.split(key)
    body = model.init(backbone_key)
    width = model.width(model.image_size)
    top = head.init(head_key, width, projection.prototypes, projection.hidden, projection.bottleneck)
    return state_from(body, top, optimization)


def state_from(body: Variables, projection: Variables, optimization: Optimization) -> TrainState:
    """The state in which training from given variables begins."""
    params = {"backbone": body["params"], "head": projection["params"]}
    prototypes_CxD = params["head"]["last_layer"]["weight_v"]
    batch_stats = body.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        student=params,
        teacher=jax.tree.map(jnp.copy, params),
        batch_stats={"student": batch_stats, "teacher": jax.tree.map(jnp.copy, batch_stats)},
        opt_state=optimizer(optimization, StepValues(0, 0, 0, False)).init(params),
        center=jnp.zeros(len(prototypes_CxD), prototypes_CxD.dtype),
    )


def teacher_of(state: TrainState) -> tuple[Variables, Variables]:
    """Backbone and head of the teacher, as their modules take them."""
    return backbone_variables(state.teacher, state.batch_stats["teacher"]), {"params": state.teacher["head"]}


def backbone_variables(params: Params, batch_stats: Any) -> Variables:
    """The variables of the backbone; one without BatchNorm has no batch statistics."""
    return {"params": params["backbone"]} | ({"batch_stats": batch_stats} if batch_stats else {})


def state_specs(state: TrainState) -> TrainState:
    """How each array of a state (or of its shapes) is split over the mesh.

    Prototypes, their optimizer state and the center are split over the axis `model`; every device has all the rest.
    """

    def spec(path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        names = {getattr(entry, "key", getattr(entry, "name", None)) for entry in path}
        is_split = leaf.ndim and names & {"last_layer", "center"}
        return PartitionSpec("model") if is_split else PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec, state)
