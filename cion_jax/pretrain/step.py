"""One step of training as one XLA program: crops, teacher, student, loss, gradients, update.

Arrays are batch-major: views of an image stand together, so that flattening them keeps the batch's sharding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cion_jax.config import Optimization, Pretraining
from cion_jax.data.augment import multi_crop
from cion_jax.models import head
from cion_jax.models.zoo import Backbone
from cion_jax.pretrain import loss
from cion_jax.pretrain.optimizer import optimizer
from cion_jax.pretrain.schedules import StepValues
from cion_jax.pretrain.state import Params, TrainState, body_of, placement, shapes

Metrics = dict[str, Array]
#: Global crops (B, 2, H, W, 3) and local crops (B, n, h, w, 3).
Views = tuple[Array, Array]


@dataclass(frozen=True)
class StepConfig:
    """What stays the same from step to step, and is compiled in."""

    settings: Pretraining
    model: Backbone
    instances: int
    """K, images of an identity in consecutive rows of the batch."""
    mesh: Mesh


def train_step(
    config: StepConfig, state: TrainState
) -> Callable[[TrainState, Array, StepValues], tuple[TrainState, Metrics]]:
    """The jitted step for such a state and uint8 images (parts, batch / parts, H, W, 3); it uses the state up."""
    settings = config.settings
    places = placement(config.mesh, state)
    whole = NamedSharding(config.mesh, PartitionSpec())

    def step(state: TrainState, images: Array, rates: StepValues) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)

        def views(part: Array, number: Array) -> tuple[Views, Array]:
            crops_key, path_key = jax.random.split(jax.random.fold_in(key, number))
            return multi_crop(part, crops_key, settings.crops, jnp.dtype(settings.precision)), path_key

        slopes, batch_stats, center, metrics = gradients(config, state, images, views)
        norms = {"gradient_norm": optax.tree.norm(slopes), "center_norm": jnp.linalg.norm(center)}
        return update(settings.optimization, state, slopes, batch_stats, center, rates), metrics | norms

    ins, outs = (places, images_placement(config.mesh), whole), (places, whole)
    return jax.jit(step, in_shardings=ins, out_shardings=outs, donate_argnums=0)


def lowered(config: StepConfig) -> Any:
    """The step as JAX traces it, from shapes alone: to be compiled, read, or asked what it needs."""
    settings, number = config.settings, jax.ShapeDtypeStruct((), jnp.float32)
    state = shapes(config.model, settings.head, settings.optimization)
    shape = settings.accumulate, settings.batch // settings.accumulate, *settings.image_size, 3
    rates: Any = StepValues(number, number, number, jax.ShapeDtypeStruct((), bool))  # type: ignore[arg-type]
    step: Any = train_step(config, state)
    return step.lower(state, jax.ShapeDtypeStruct(shape, jnp.uint8), rates)


def images_placement(mesh: Mesh) -> NamedSharding:
    """Where images (parts, batch / parts, ...) live: all devices share them, by groups of the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))


def gradients(
    config: StepConfig, state: TrainState, parts: Any, views: Callable[[Any, Array], tuple[Views, Array]]
) -> tuple[Params, dict[str, Any], Array, Metrics]:
    """Gradients of the mean loss over all parts of a batch, batch batch_stats and center moved on, and metrics.

    `parts` are arrays whose first axis counts the parts, which go through the networks one after the other; `views`
    makes the crops of part number n, and a key for drop path.
    """
    gradient = jax.grad(distil, has_aux=True)

    def add(carry: tuple[Any, Any], part: tuple[Any, Array]) -> tuple[tuple[Any, Any], tuple[Array, Metrics]]:
        batch_stats, total = carry
        crops, key = views(*part)
        found, (batch_stats, *beside) = gradient(state.student, config, state, batch_stats, crops, key)
        return (batch_stats, jax.tree.map(jnp.add, total, found)), tuple(beside)

    count = len(jax.tree.leaves(parts)[0])
    begin = state.batch_stats, jax.tree.map(jnp.zeros_like, state.student)
    if count == 1:  # a loop of one would stay a loop, in which XLA runs convolutions on a CPU many times slower
        (batch_stats, total), (center, metrics) = add(begin, (jax.tree.map(lambda leaf: leaf[0], parts), jnp.array(0)))
    else:
        (batch_stats, total), beside = jax.lax.scan(add, begin, (parts, jnp.arange(count)))
        center, metrics = jax.tree.map(lambda leaf: leaf.mean(axis=0), beside)
    return jax.tree.map(lambda leaf: leaf / count, total), batch_stats, center, metrics


def update(
    settings: Optimization,
    state: TrainState,
    gradients: Params,
    batch_stats: dict[str, Any],
    center: Array,
    rates: StepValues,
) -> TrainState:
    """The next state: the student follows the gradients, the teacher the student's parameters."""
    updates, opt_state = optimizer(settings, rates).update(gradients, state.opt_state, state.student)
    student = optax.apply_updates(state.student, updates)
    teacher = jax.tree.map(lambda old, new: old + rates.ema_step * (new - old), state.teacher, student)
    return TrainState(state.step + 1, student, teacher, batch_stats, opt_state, center)


def distil(
    student: Params, config: StepConfig, state: TrainState, batch_stats: dict[str, Any], crops: Views, key: Array
) -> tuple[Array, tuple[dict[str, Any], Array, Metrics]]:
    """The loss of one part of a batch; beside it batch batch_stats and center moved on, and metrics."""
    globals_, locals_ = crops
    model, shape = config.model, config.settings.head
    global_key, local_key = jax.random.split(key)
    features, teacher_moved = forward(model, state.teacher, batch_stats["teacher"], globals_, None)
    teacher = _bottlenecks(state.teacher, features, globals_)
    seen, moved = forward(model, student, batch_stats["student"], globals_, global_key)
    views = [_bottlenecks(student, seen, globals_)]
    if locals_.shape[1]:
        seen, moved = forward(model, student, moved, locals_, local_key)
        views.append(_bottlenecks(student, seen, locals_))
    rows, teacher_rows = (head.prototypes({"params": params["head"]}) for params in (student, state.teacher))
    value, entropy = loss.loss_on_mesh(
        config.mesh,
        jnp.concatenate(views, axis=1),
        teacher,
        rows,
        teacher_rows,
        state.center,
        instances=config.instances,
        student_temperature=shape.student_temperature,
        teacher_temperature=shape.teacher_temperature,
        block=shape.block,
    )
    center = loss.next_center(state.center, teacher, teacher_rows, shape.center_momentum)
    metrics = {"loss": value, "entropy": entropy, "feature_std": _spread(features)}
    return value, ({"student": moved, "teacher": teacher_moved}, center, metrics)


def forward(model: Backbone, params: Params, batch_stats: Any, views: Array, key: Array | None) -> tuple[Array, Any]:
    """Features of all views of all images, in one batch, and running batch_stats moved on; the key is for drop path."""
    features, moved = model.apply(
        body_of(params, batch_stats), views.reshape(-1, *views.shape[2:]), train=True, rng=key
    )
    return features, moved.get("batch_stats", {})


def _bottlenecks(params: Params, features: Array, views: Array) -> Array:
    return head.bottleneck({"params": params["head"]}, features).reshape(*views.shape[:2], -1)


def _spread(features: Array) -> Array:
    """Standard deviation of unit features over the batch, times the root of their width: 0 when all have become one."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    unit = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
    return unit.std(axis=0).mean() * jnp.sqrt(features.shape[-1])
