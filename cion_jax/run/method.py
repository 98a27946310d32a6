"""A method of training, as the trainer sees it: what a state is, what a step does, and what comes out.

The trainer knows no loss and no network. It takes a method and keeps it going: batches, checkpoints, journal, scores,
many devices and hosts. A new way to train is a class with the attributes of `Method`; `run.pretraining` is one.
"""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from cion_jax.config import Training
from cion_jax.data.records import Records
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables
from cion_jax.run.loader import Batch
from cion_jax.run.plan import Stages
from cion_jax.run.sharding import batch_sharding, replicated, shardings, shardings_of
from cion_jax.terminal import ProgressBar

#: A NamedTuple of arrays, of which one is `step`, the number of steps done.
State = Any
#: From a state, a method's inputs and the step's values to the next state and metrics.
Step = Callable[[State, Any, Any], tuple[State, dict[str, Array]]]


class Relabelled(NamedTuple):
    """Where training goes on from with new labels."""

    labels: np.ndarray
    """A number for each image, -1 for those that are left out."""
    state: State


class Method(Protocol):
    """One way of training."""

    @property
    def settings(self) -> Training:
        """What was asked for."""
        ...

    @property
    def model(self) -> Network:
        """The network that is scored and written, for images of the size that it is trained with."""
        ...

    @property
    def start(self) -> Any:
        """Arrays that `init` begins with, such as weights from a file."""
        ...

    @property
    def weights_file(self) -> str:
        """The name of the file of weights in the run's folder, written anew after each epoch."""
        ...

    def stages(self, records: Records) -> Stages:
        """The epochs of the run with these records, by K and by labels; what cannot work is refused."""
        ...

    def first_labels(self, records: Records) -> np.ndarray:
        """Who counts as the same person at the start: a number for each image, -1 for those that are left out."""
        ...

    def with_batch(self, batch: int) -> "Method":
        """The same method with another number of images in a step."""
        ...

    def init(self, key: Array, start: Any) -> State:
        """The state at the beginning."""
        ...

    def specs(self, state: State) -> State:
        """How each array of a state (or of its shapes) is split over the axes (data, model)."""
        ...

    def step(self, instances: int, mesh: Mesh, phase: Hashable = None) -> Step:
        """The step for batches of K instances, in a phase."""
        ...

    def phase(self, values: Any) -> Hashable:
        """Which program a step with these values needs, where one does not serve all; a None always goes."""
        ...

    def inputs(self, batch: Batch) -> Any:
        """What the step takes of a batch: arrays (parts, batch / parts, ...)."""
        ...

    def values_at(self, epoch: int, batch: int, batches: int) -> Any:
        """What schedules give a step: a NamedTuple of numbers, with `as_dict` for the journal."""
        ...

    def flops(self) -> float:
        """Operations that a step needs by its formulas."""
        ...

    def export(self, state: State) -> tuple[Variables, Variables | None]:
        """Variables of the network that is scored and written, and of its head if that is kept."""
        ...

    def relabel(self, state: State, records: Records, out: Path, epoch: int, bar: ProgressBar) -> Relabelled:
        """The labels from an epoch on, where the plan has new ones, as the network sees the records."""
        ...

    def scores(self, state: State, epochs: int, bar: ProgressBar) -> dict[str, float]:
        """What goes into the journal after so many epochs; nothing where nothing is asked for."""
        ...

    @property
    def chosen_by(self) -> str | None:
        """The score by which the weights of the best epoch are kept; None keeps the last alone."""
        ...


def abstract_state(method: Method, mesh: Mesh) -> State:
    """Shapes, types and shardings of a method's state on a mesh. Nothing is computed, but tracing takes a second."""
    shapes = jax.eval_shape(method.init, jax.random.key(0), method.start)
    places = shardings(mesh, method.specs(shapes))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
    )


def jit_step(method: Method, instances: int, mesh: Mesh, state: State, phase: Hashable = None) -> Any:
    """A method's step as one XLA program over a mesh, for states like this one, or like its `abstract_state`.

    The program uses up the state that it is given.
    """
    places = shardings_of(state)
    whole = replicated(mesh)
    return jax.jit(
        method.step(instances, mesh, phase),
        in_shardings=(places, batch_sharding(mesh), whole),
        out_shardings=(places, whole),
        donate_argnums=0,
    )


def lower_step(method: Method, instances: int, mesh: Mesh, platform: str | None = None) -> Any:
    """The step as JAX traces it, from shapes alone: to be compiled, read, or asked what it needs.

    For a `platform` that is not here it can only be read.
    """
    settings = method.settings
    rows = settings.accumulate, settings.batch // settings.accumulate
    values = jax.tree.map(_abstract_number, method.values_at(settings.epochs - 1, 0, 1))
    images = jax.ShapeDtypeStruct((*rows, *settings.image_size, 3), jnp.uint8)
    inputs = method.inputs(Batch(images, jax.ShapeDtypeStruct(rows, jnp.int32), 0, 0.0))
    state = abstract_state(method, mesh)
    traced = jit_step(method, instances, mesh, state).trace(state, inputs, values)
    return traced.lower(lowering_platforms=platform and (platform,))


def _abstract_number(number: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype(np.result_type(number)))
