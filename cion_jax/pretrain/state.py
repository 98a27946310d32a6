"""All that training moves, and where it lives on a mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.config import Head, Optimization
from cion_jax.errors import UserError
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
    batch_stats: dict[str, Any]
    """Running batch batch_stats of student and teacher; empty for backbones without any."""
    opt_state: Any
    """The optimizer's state."""
    center: Array
    """(prototypes,): running mean of the teacher's logits."""


def fresh(model: Backbone, projection: Head, optimization: Optimization, key: Array) -> TrainState:
    """A student at its start, and a teacher equal to it."""
    backbone_key, head_key = jax.random.split(key)
    body = model.init(backbone_key)
    sizes = model.width(model.image_size), projection.prototypes, projection.hidden, projection.bottleneck
    return start(body, head.init(head_key, *sizes), optimization)


def shapes(model: Backbone, projection: Head, optimization: Optimization) -> TrainState:
    """Shapes and types of `fresh`, of which nothing is computed."""
    return jax.eval_shape(lambda: fresh(model, projection, optimization, jax.random.key(0)))


def start(body: Variables, projection: Variables, optimization: Optimization) -> TrainState:
    """The state that training from given variables begins with."""
    params = {"backbone": body["params"], "head": projection["params"]}
    rows = params["head"]["last_layer"]["weight_v"]
    batch_stats = body.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        student=params,
        teacher=jax.tree.map(jnp.copy, params),
        batch_stats={"student": batch_stats, "teacher": jax.tree.map(jnp.copy, batch_stats)},
        opt_state=optimizer(optimization, StepValues(0, 0, 0, False)).init(params),
        center=jnp.zeros(len(rows), rows.dtype),
    )


def teacher_of(state: TrainState) -> tuple[Variables, Variables]:
    """Backbone and head of the teacher, as their modules take them."""
    return body_of(state.teacher, state.batch_stats["teacher"]), {"params": state.teacher["head"]}


def body_of(params: Params, batch_stats: Any) -> Variables:
    """The backbone's variables; there are no batch batch_stats where it has no BatchNorm."""
    return {"params": params["backbone"]} | ({"batch_stats": batch_stats} if batch_stats else {})


def mesh_of(devices: int, model_axis: int) -> Mesh:
    """All devices as (data, model): `model_axis` of them share the prototypes; all of them share the images.

    Beyond the backbone the groups share the batch: the devices of a group have the same bottleneck vectors.
    """
    if model_axis < 1 or devices % model_axis:
        raise UserError(f"{devices} devices cannot be split into groups of {model_axis}; set model_axis to a divisor")
    axes = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((devices // model_axis, model_axis), ("data", "model"), axis_types=axes)


def placement(mesh: Mesh, state: TrainState) -> TrainState:
    """Where each array of a state (or of its shapes) lives: prototypes, their moments and the center in parts."""

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = {getattr(entry, "key", getattr(entry, "name", None)) for entry in path}
        in_parts = leaf.ndim and names & {"last_layer", "center"}
        return NamedSharding(mesh, PartitionSpec("model") if in_parts else PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)
