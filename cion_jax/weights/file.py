"""Our own file of weights: a safetensors file with PyTorch's keys and a card that says what they are weights of.

Keys are `backbone.*` and, where the projection head is kept, `head.*`. The card is the file's metadata: the name of the
backbone, its image size, and whether it is in its fused form.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from cion_jax.errors import UserError
from cion_jax.models import head as projection
from cion_jax.models.zoo import Backbone, Variables, backbone
from cion_jax.weights.adapt import adapted
from cion_jax.weights.foreign import read_metadata, read_state, split_prefixes, write_state
from cion_jax.weights.mapping import State, from_state_dict, state_dict


@dataclass(frozen=True)
class Weights:
    """A backbone with its variables, and the head it was trained with if that was kept."""

    backbone: Backbone
    variables: Variables
    head: Variables | None = None


def save(path: Path, weights: Weights) -> None:
    """Write weights as our own file."""
    model = weights.backbone
    size = "x".join(map(str, model.image_size))
    metadata = {"backbone": model.name, "image_size": size, "fused": str(model.is_fused)}
    write_state(path, prefixed(weights, "backbone.", "head."), metadata=metadata)


def load(path: Path) -> Weights:
    """Read a file that `save` wrote."""
    metadata = read_metadata(path)
    try:
        rows, columns = map(int, metadata["image_size"].split("x"))
        model = backbone(metadata["backbone"], image_size=(rows, columns))
        if metadata["fused"] == "True":
            model = model.fused_form()
    except (KeyError, ValueError):
        raise UserError(f"{path}: does not say what it is weights of; bring it in with `cion import`") from None
    body, head = split_prefixes(read_state(path))
    return Weights(model, from_state_dict(model.shapes(), body), _head(head))


def convert(
    path: Path, model: Backbone, *, part: str = "teacher", allow: Collection[str] = (), adapt: bool = False
) -> tuple[Weights, list[str]]:
    """Weights from any file, and a line for each change that makes them fit.

    Args:
        path: A .pth or safetensors file.
        model: What they should be weights of.
        part: Which network of a training checkpoint to take.
        allow: Patterns of keys that may be missing (they stay as initialised), misshapen (likewise) or unexpected.
        adapt: Resample position tables and change the stem's input channels where only they do not fit.
    """
    body, head = split_prefixes(read_state(path, part))
    notes: list[str] = []
    if adapt:
        height, width = model.image_size
        wanted = {key: leaf.shape for key, leaf in _blank(model).items()}
        body, notes = adapted(body, wanted, (height // 16, width // 16))
    template = model.init(jax.random.key(0)) if allow else model.shapes()
    try:
        return Weights(model, from_state_dict(template, body, allow), _head(head)), notes
    except UserError as error:
        raise UserError(f"{path} for {model.name}: {error}") from None


def prefixed(weights: Weights, body: str, head: str) -> State:
    """The state_dict of backbone and head (if there is one), with a prefix for each."""
    state = state_dict(weights.variables, weights.backbone.order)
    keyed = {body + key: value for key, value in state.items()}
    if weights.head is not None:
        keyed |= {head + key: value for key, value in state_dict(weights.head, projection.ORDER.split()).items()}
    return keyed


def reidzoo(weights: Weights) -> State:
    """The keys that ReIDZoo checkpoints have under `teacher`: there only networks with BatchNorm are wrapped."""
    wrapper = "module." if "batch_stats" in weights.variables else ""
    return prefixed(weights, f"{wrapper}backbone.", f"{wrapper}head.")


def _blank(model: Backbone) -> State:
    """A state_dict of the right shapes, without values."""
    zeros = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), model.shapes())
    return state_dict(zeros, model.order)


def _head(state: Mapping[str, np.ndarray]) -> Variables | None:
    """The head, with sizes from its own weights; None if the file has no keys of it."""
    if not state:
        return None
    try:
        hidden, inputs = state["mlp.0.weight"].shape
        bottleneck = len(state["mlp.4.weight"])
        prototypes = len(state["last_layer.weight_v"])
    except (KeyError, ValueError):
        raise UserError(
            f"{len(state)} keys head.* are no projection head, as {next(iter(state))}; remove them"
        ) from None
    make = partial(projection.init, inputs=inputs, prototypes=prototypes, hidden=hidden, bottleneck=bottleneck)
    return from_state_dict(jax.eval_shape(make, jax.random.key(0)), state)
