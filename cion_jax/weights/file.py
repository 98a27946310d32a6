"""Our own file of weights: a safetensors file with PyTorch's keys and a card that says what they are weights of.

Keys are `backbone.*` and, where the projection head is kept, `head.*`; those of a fine-tuned network are the published
ones of its method. The card is the file's metadata; `weights.card` says what stands in it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from cion_jax.errors import UserError
from cion_jax.finetune.bnneck import BNNeck, backbone_variables
from cion_jax.finetune.network import Finetuned
from cion_jax.models import head as projection
from cion_jax.models.network import Network
from cion_jax.models.zoo import Backbone, Variables, backbone
from cion_jax.weights.adapt import adapted
from cion_jax.weights.card import card, origin_of, pixels
from cion_jax.weights.finetuned import from_card, method_of, published, with_pixels
from cion_jax.weights.foreign import read_metadata, read_noted, read_state, write_state
from cion_jax.weights.mapping import State, from_state_dict, state_dict
from cion_jax.weights.state_dicts import split_prefixes, stripped, without_classifier
from cion_jax.weights.timm_names import is_timm, translated, variant


@dataclass(frozen=True)
class Weights:
    """A network with its variables, and the head that a backbone was trained with if that was kept."""

    network: Network
    variables: Variables
    head: Variables | None = None
    counts: State = field(default_factory=dict)
    """How many batches PyTorch's norms have seen, by the key `*.num_batches_tracked`, where a file told it."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """What is known of where they come from: `data`, the fingerprint of what they were trained on, and `licence`."""


def save(path: Path | str, weights: Weights) -> None:
    """Write weights as our own file."""
    path = Path(path)
    is_finetuned = isinstance(weights.network, Finetuned)
    state = _network_state(weights) if is_finetuned else prefixed(weights, "backbone.", "head.")
    write_state(path, state, metadata=card(weights.network, weights.origin))


def load(path: Path | str) -> Weights:
    """Read a file that `save` wrote."""
    path = Path(path)
    metadata = read_metadata(path)
    state = read_state(path)
    try:
        return _network_of(metadata, state)
    except (KeyError, ValueError):
        raise UserError(f"{path}: does not say what it is weights of; bring it in with `cion import`") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _network_of(metadata: Mapping[str, str], state: State) -> Weights:
    rows, columns = map(int, metadata["image_size"].split("x"))
    model = backbone(metadata["backbone"], image_size=(rows, columns))
    origin = origin_of(metadata)
    if "method" in metadata:
        network = from_card(metadata, model, state)
        return Weights(network, from_state_dict(network.shapes(), state), counts=_counts(state), origin=origin)
    if metadata["fused"] == "True":
        model = model.fused_form()
    if "mean" in metadata:
        mean, std = pixels(metadata)
        model = replace(model, mean=mean, std=std)
    body, head = split_prefixes(state)
    return Weights(model, from_state_dict(model.shapes(), body), _head(head), _counts(body), origin)


def convert(
    path: Path | str,
    name: str,
    *,
    image_size: tuple[int, int] | None = None,
    key: str | None = None,
    strip: str | None = None,
    allow: Collection[str] = (),
    adapt: bool = False,
) -> tuple[Weights, list[str]]:
    """Weights from any file, and a line for each thing that is left out, changed or worth knowing.

    The keys of published fine-tuning (MGN, TransReID, cluster contrast) are known, and give a fine-tuned network.

    Args:
        path: A PyTorch or safetensors file.
        name: The backbone that they are weights of, or are built on.
        image_size: Height and width of images; without it those of the published training.
        key: Where in the file the state_dict lies, names joined by dots; by default there is one, or that of `teacher`.
        strip: The prefix of the keys to take; all others are left out.
        allow: Patterns of keys that may be missing (they stay as initialised), misshapen (likewise) or unexpected.
        adapt: Resample position tables and change the stem's input channels where only they do not fit.
    """
    path = Path(path)
    state, notes = read_noted(path, key)
    try:
        state, others = stripped(state, strip)
        if method_of(state):
            return _finetuned(state, name, image_size), notes + others
        model = backbone(name, image_size=image_size or (256, 128))
        weights, changes = _backbone(state, model, allow, adapt)
        return weights, notes + others + changes
    except UserError as error:
        raise UserError(f"{path} for {name}: {error}") from None


def _backbone(state: State, model: Backbone, allow: Collection[str], adapt: bool) -> tuple[Weights, list[str]]:
    """A backbone's weights, under names of ours or of timm."""
    renamed, notes = translated(state, model.family)
    plain_state, left_out = without_classifier(renamed)
    body, head = split_prefixes(plain_state)
    notes += left_out
    wanted = {key: leaf.shape for key, leaf in _blank(model).items()}
    if adapt:
        height, width = model.image_size
        body, changes = adapted(body, wanted, (height // 16, width // 16))
        notes += changes
    template = model.init(jax.random.key(0)) if allow else model.shapes()
    try:
        return Weights(model, from_state_dict(template, body, allow), _head(head), _counts(body)), notes
    except UserError as error:
        why = f"{variant(model.family)}; " if is_timm(state, model.family) else ""
        raise UserError(f"{why}{error}{_hint(state, wanted)}") from None


def _hint(state: State, wanted: Collection[str]) -> str:
    """The prefixes under which a state_dict has all keys that are wanted."""
    first = next(iter(wanted))
    needed = [key for key in wanted if not key.endswith(("num_batches_tracked", "relative_position_index"))]
    prefixes = {key.removesuffix(first) for key in state if key.endswith(f".{first}")}
    whole = [prefix for prefix in sorted(prefixes) if all(prefix + key in state for key in needed)]
    return f"; take those of one network with --strip {' or '.join(whole)}" if whole else ""


def _finetuned(state: State, name: str, image_size: tuple[int, int] | None) -> Weights:
    try:
        network, own = published(state, name, image_size)
        return Weights(network, from_state_dict(network.shapes(), own), counts=_counts(own))
    except UserError as error:
        raise UserError(f"as fine-tuned by {method_of(state)}: {error}") from None


def body_of(weights: Weights, model: Backbone) -> Variables:
    """The variables of the backbone in weights, for a backbone whose images may have another size."""
    network, variables = weights.network, weights.variables
    if isinstance(network, BNNeck):
        network, variables = network.backbone, backbone_variables(variables)
    if not isinstance(network, Backbone) or network.is_fused:
        kind = getattr(network, "method", "fused")
        raise UserError(
            f"{network.name}: weights in the form {kind} have no backbone to train on; take those before it"
        )
    height, width = model.image_size
    wanted = {key: leaf.shape for key, leaf in _blank(model).items()}
    state, _ = adapted(state_dict(variables, network.order), wanted, (height // 16, width // 16))
    return from_state_dict(model.shapes(), state)


def plain(weights: Weights) -> State:
    """The keys that PyTorch's code has for the network alone."""
    network = weights.network
    state = _network_state(weights)
    return with_pixels(network, state) if isinstance(network, Finetuned) else state


def prefixed(weights: Weights, body: str, head: str) -> State:
    """The state_dict of backbone and head (if there is one), with a prefix for each."""
    state = _network_state(weights)
    keyed = {body + key: value for key, value in state.items()}
    if weights.head is not None:
        keyed |= {head + key: value for key, value in state_dict(weights.head, projection.ORDER.split()).items()}
    return keyed


def reidzoo(weights: Weights) -> State:
    """The keys that ReIDZoo checkpoints have under `teacher`: there only networks with BatchNorm are wrapped."""
    wrapper = "module." if "batch_stats" in weights.variables else ""
    return prefixed(weights, f"{wrapper}backbone.", f"{wrapper}head.")


def _network_state(weights: Weights) -> State:
    """The state_dict of the network, with the counts that are known."""
    state = state_dict(weights.variables, weights.network.order)
    return {key: weights.counts.get(key, value) for key, value in state.items()}


def _counts(state: State) -> State:
    known = {key: value for key, value in state.items() if key.endswith(".num_batches_tracked")}
    return {key: value for key, value in known.items() if value.shape == () and value.dtype == np.int64}


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
