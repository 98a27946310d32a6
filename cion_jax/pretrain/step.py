"""One step of pre-training: crops, teacher, student, loss, gradients, update.

Everything here is a pure function of arrays; `run.method.jit_step` makes one XLA program of it. Arrays are batch-major:
the V views of an image stand together, (B, V, ...), so that flattening them keeps the batch's sharding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from cion_jax.config import Optimization, Pretraining
from cion_jax.data.augment import multi_crop
from cion_jax.models import head
from cion_jax.models.precision import dtype_of, products_in
from cion_jax.models.zoo import Backbone
from cion_jax.pretrain import loss
from cion_jax.pretrain.optimizer import optimizer
from cion_jax.pretrain.parts import over_parts
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import Params, TrainState, backbone_variables

Metrics = dict[str, Array]
#: Global crops (B, 2, H, W, 3) and local crops (B, n, h, w, 3).
Views = tuple[Array, Array]
Step = Callable[[TrainState, Array, StepValues], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class StepConfig:
    """What stays the same from step to step, and is compiled in."""

    settings: Pretraining
    model: Backbone
    instances: int
    """K, images of an identity in consecutive rows of the batch."""
    mesh: Mesh


def train_step(config: StepConfig) -> Step:
    """The step from a state, uint8 images (parts, B, H, W, 3) and the step's values to the next state and metrics."""
    settings = config.settings

    def step(state: TrainState, images: Array, values: StepValues) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)

        def views(part: Array, number: Array) -> tuple[Views, Array]:
            crops_key, path_key = jax.random.split(jax.random.fold_in(key, number))
            on_cpu = config.model.platform == "cpu"
            dtype = dtype_of(settings.precision)
            with jax.named_scope("crops"):
                return multi_crop(part, crops_key, settings.crops, dtype, on_cpu=on_cpu), path_key

        grads, batch_stats, center, metrics = gradients(config, state, images, views)
        norms = {"gradient_norm": optax.tree.norm(grads), "center_norm": jnp.linalg.norm(center)}
        with jax.named_scope("update"):
            return update(settings.optimization, state, grads, batch_stats, center, values), metrics | norms

    return step


def gradients(
    config: StepConfig, state: TrainState, parts: Any, views: Callable[[Any, Array], tuple[Views, Array]]
) -> tuple[Params, dict[str, Any], Array, Metrics]:
    """Gradients of the loss, mean over all parts of a batch; the next batch statistics and center; and metrics.

    Args:
        config: What is compiled in.
        state: Where training stands.
        parts: Arrays whose first axis counts the parts; they go through the networks one after the other.
        views: Makes the crops of a part from its arrays and number, and a key for drop path.
    """
    gradient = jax.grad(distillation_loss, has_aux=True)

    def add(carry: tuple[Any, Any], part: tuple[Any, Array]) -> tuple[tuple[Any, Any], tuple[Array, Metrics]]:
        batch_stats, total = carry
        crops, key = views(*part)
        grads, (batch_stats, center, metrics) = gradient(state.student, config, state, batch_stats, crops, key)
        return (batch_stats, jax.tree.map(jnp.add, total, grads)), (center, metrics)

    begin = state.batch_stats, jax.tree.map(jnp.zeros_like, state.student)
    with products_in(config.settings.precision):  # here and not in the loss: gradients are traced after it
        (batch_stats, total), of_parts = over_parts(add, begin, parts)
    center, metrics = jax.tree.map(lambda leaf: leaf.mean(axis=0), of_parts)
    count = len(jax.tree.leaves(parts)[0])
    return jax.tree.map(lambda leaf: leaf / count, total), batch_stats, center, metrics


def update(
    settings: Optimization,
    state: TrainState,
    grads: Params,
    batch_stats: dict[str, Any],
    center: Array,
    values: StepValues,
) -> TrainState:
    """The next state: the student follows the gradients, the teacher follows the student's parameters (EMA)."""
    updates, opt_state = optimizer(settings, values).update(grads, state.opt_state, state.student)
    student = optax.apply_updates(state.student, updates)
    teacher = jax.tree.map(lambda old, new: old + values.ema_step * (new - old), state.teacher, student)
    return TrainState(state.step + 1, student, teacher, batch_stats, opt_state, center)


def distillation_loss(
    student: Params, config: StepConfig, state: TrainState, batch_stats: dict[str, Any], crops: Views, key: Array
) -> tuple[Array, tuple[dict[str, Any], Array, Metrics]]:
    """The loss of one part of a batch; and beside it the next batch statistics and center, and metrics."""
    global_crops, local_crops = crops
    model = config.model
    settings = config.settings.head
    global_key, local_key = jax.random.split(key)
    # The teacher sees the global crops, in training mode: its BatchNorm takes the statistics of its own batch.
    with jax.named_scope("teacher"):
        features, teacher_stats = forward(model, state.teacher, batch_stats["teacher"], global_crops, None)
        teacher_Bx2xD = _bottlenecks(state.teacher, features, global_crops)
    # The student sees all crops; those of another size are another forward, with batch statistics of its own.
    with jax.named_scope("student"):
        student_features, student_stats = forward(model, student, batch_stats["student"], global_crops, global_key)
        views = [_bottlenecks(student, student_features, global_crops)]
        if local_crops.shape[1]:
            student_features, student_stats = forward(model, student, student_stats, local_crops, local_key)
            views.append(_bottlenecks(student, student_features, local_crops))
    with jax.named_scope("loss"):
        prototypes_CxD = head.prototypes({"params": student["head"]})
        teacher_prototypes_CxD = head.prototypes({"params": state.teacher["head"]})
        value, entropy = loss.loss_on_mesh(
            config.mesh,
            jnp.concatenate(views, axis=1),
            teacher_Bx2xD,
            prototypes_CxD,
            teacher_prototypes_CxD,
            state.center,
            instances=config.instances,
            student_temperature=settings.student_temperature,
            teacher_temperature=settings.teacher_temperature,
            block=settings.block,
        )
        mean_logits_C = head.logits({"params": state.teacher["head"]}, teacher_Bx2xD.mean((0, 1)))
        center = loss.next_center(state.center, mean_logits_C, settings.center_momentum)
    metrics = {"loss": value, "entropy": entropy, "feature_std": _feature_std(features)}
    return value, ({"student": student_stats, "teacher": teacher_stats}, center, metrics)


def forward(model: Backbone, params: Params, batch_stats: Any, views: Array, key: Array | None) -> tuple[Array, Any]:
    """Features (B V, width) of all views in one batch, and the next batch statistics; the key is for drop path."""
    variables = backbone_variables(params, batch_stats)
    features, moved = model.apply(variables, views.reshape(-1, *views.shape[2:]), train=True, rng=key)
    return features, moved.get("batch_stats", {})


def _bottlenecks(params: Params, features: Array, views: Array) -> Array:
    """Unit vectors (B, V, D) from the projection head."""
    return head.bottleneck({"params": params["head"]}, features).reshape(*views.shape[:2], -1)


def _feature_std(features: Array) -> Array:
    """Standard deviation of unit features over the batch, times the root of their width: 0 when all have become one."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    unit = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
    return unit.std(axis=0).mean() * jnp.sqrt(features.shape[-1])
