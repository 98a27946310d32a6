"""One step of fine-tuning: augmentation, the network, its losses, gradients, update; the same for every method.

Everything here is a pure function of arrays; `run.method.jit_step` makes one XLA program of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cion_jax.config import Augmentation, Precision
from cion_jax.finetune.augment import augment
from cion_jax.finetune.network import Finetuned
from cion_jax.models.precision import dtype_of, products_in
from cion_jax.models.zoo import Variables
from cion_jax.pretrain.parts import over_parts

Params = dict[str, Any]
Metrics = dict[str, Array]


class FinetuneState(NamedTuple):
    """Everything that a step changes."""

    step: Array
    """Steps done."""
    params: Params
    batch_stats: Params
    """Running batch statistics."""
    opt_state: Any
    """The optimizer's state."""
    memory: Any
    """A row for each cluster, (clusters, width); () where a method has no memory."""


class Labelled(NamedTuple):
    """The images of a step, and who is on them."""

    images: Array
    """uint8 (parts, batch / parts, H, W, 3)."""
    labels: Array
    """int32 (parts, batch / parts): numbers from 0 on."""


Step = Callable[[FinetuneState, Labelled, Any], tuple[FinetuneState, Metrics]]


@dataclass(frozen=True)
class StepConfig:
    """What stays the same from step to step, and is compiled in."""

    network: Finetuned
    augmentation: Augmentation
    precision: Precision
    seed: int
    optimizer: Callable[[Any], optax.GradientTransformationExtraArgs]
    """From the step's values to what moves the parameters."""
    remember: Callable[[Array, Array, Array], Array] | None
    """From a memory, features and labels to the next memory."""


def init_state(config: StepConfig, variables: Variables, values: Any, clusters: int) -> FinetuneState:
    """The state in which training begins; `values` are those of any step."""
    network = config.network
    return FinetuneState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=config.optimizer(values).init(variables["params"]),
        memory=jnp.zeros((clusters, network.width(network.image_size))) if clusters else (),
    )


def finetune_step(config: StepConfig, *, frozen: bool = False) -> Step:
    """The step from a state, labelled images and the step's values to the next state and metrics.

    With `frozen` what came with the backbone stands still, where a method has such a start.
    """

    @products_in(config.precision)
    def step(state: FinetuneState, batch: Labelled, values: Any) -> tuple[FinetuneState, Metrics]:
        grads, batch_stats, features_BxD, metrics = gradients(config, state, batch, frozen=frozen)
        with jax.named_scope("update"):
            updates, opt_state = config.optimizer(values).update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        memory_CxD = state.memory
        if config.remember is not None:
            memory_CxD = config.remember(memory_CxD, features_BxD, batch.labels.ravel())
        metrics |= {"gradient_norm": optax.tree.norm(grads)}
        return FinetuneState(state.step + 1, params, batch_stats, opt_state, memory_CxD), metrics

    return step


def gradients(
    config: StepConfig, state: FinetuneState, batch: Labelled, *, frozen: bool
) -> tuple[Params, Params, Array, Metrics]:
    """Gradients of the sum of losses, mean over all parts of a batch; the next batch statistics; the features of all
    images; and metrics."""
    step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    gradient = jax.grad(partial(_loss, config, state.memory, frozen), has_aux=True)

    def add(carry: tuple[Any, Any], part: tuple[Labelled, Array]) -> tuple[tuple[Any, Any], tuple[Array, Metrics]]:
        batch_stats, total = carry
        (images, labels), number = part
        images_key, path_key = jax.random.split(jax.random.fold_in(step_key, number))
        dtype = dtype_of(config.precision)
        on_cpu = config.network.backbone.platform == "cpu"
        with jax.named_scope("crops"):
            views = augment(images, images_key, config.augmentation, dtype, on_cpu=on_cpu)
        grads, (batch_stats, features, metrics) = gradient(state.params, batch_stats, views, labels, path_key)
        return (batch_stats, jax.tree.map(jnp.add, total, grads)), (features, metrics)

    begin = state.batch_stats, jax.tree.map(jnp.zeros_like, state.params)
    (batch_stats, total), (features, of_parts) = over_parts(add, begin, batch)
    metrics = jax.tree.map(lambda leaf: leaf.mean(axis=0), of_parts)
    mean = jax.tree.map(lambda leaf: leaf / len(batch.images), total)
    return mean, batch_stats, features.reshape(-1, features.shape[-1]), metrics


def _loss(
    config: StepConfig,
    memory_CxD: Any,
    frozen: bool,
    params: Params,
    batch_stats: Params,
    images: Array,
    labels_B: Array,
    key: Array,
) -> tuple[Array, tuple[Params, Array, Metrics]]:
    variables = {"params": params, "batch_stats": batch_stats}
    with jax.named_scope("student"):
        losses = config.network.losses(variables, images, labels_B, memory_CxD=memory_CxD, key=key, frozen=frozen)
    value = jnp.sum(jnp.array([*losses.values.values()]))
    return value, (losses.variables["batch_stats"], losses.features_BxD, {"loss": value} | losses.values)
