"""Which part of what somebody saved are the weights of a backbone: the dict, the prefix of its keys, the classifier."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from cion_jax.errors import UserError
from cion_jax.weights.arrays import State
from cion_jax.weights.tensors import Tensor

#: Prefixes that wrappers give to all keys of a network.
_PREFIXES = ("module.", "_orig_mod.", "model.", "encoder_q.", "base.", "backbone.")
#: What a layer is called that turns features into classes, in torchvision, timm and the projects of our backbones.
_CLASSIFIERS = ("fc", "classifier", "classifier_dist", "head", "head_dist", "aux_head")
#: No deeper are state_dicts looked for, and no more prefixes are taken off.
_DEEPEST = 4


def choose(content: Any, key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    """The state_dict in what torch.save was given, and a line for what stands in it beside tensors.

    Args:
        content: What was saved.
        key: The names, joined by dots, under which the state_dict lies. By default it is the only one that there is, or
            that of `teacher` in a training checkpoint.
    """
    known = dict(_state_dicts(content))
    if key is None and "teacher" in known:
        key = "teacher"
    if key is None and len(known) > 1:
        raise UserError(f"it holds {len(known)} state_dicts: {_named(known)}; name one with --key")
    if key is not None and key not in known:
        there = f"only {_named(known)}; name one of these with --key" if known else "it is one itself; leave --key out"
        raise UserError(f"it has no state_dict {key!a}, {there}")
    state = known[key] if key in known else next(iter(known.values()), content)
    if not isinstance(state, dict):
        raise UserError(f"it holds a {type(state).__name__}, not a state_dict; save model.state_dict()")
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    others = [f"{str(name)[:80]!a} ({type(value).__name__})" for name, value in state.items() if name not in tensors]
    if others and not tensors:
        raise UserError(f"its {others[0]} is no tensor, so this is no state_dict; save model.state_dict()")
    return tensors, [f"left out, for these are no tensors: {some(others)}"] if others else []


def _state_dicts(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Dicts below `content` that have weights of layers, by the names that lead there.

    What an optimizer keeps for each parameter lies under numbers, and has no such names.
    """
    seen: set[int] = set()
    below: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    while below:
        path, value = below.popleft()
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))  # one dict may stand in many places
        if path and any(isinstance(v, Tensor) and str(name).endswith("weight") for name, v in value.items()):
            yield ".".join(path), value
        elif len(path) < _DEEPEST:
            below += [((*path, name), inner) for name, inner in value.items() if isinstance(name, str)]


def _named(known: Mapping[str, Mapping[str, Any]]) -> str:
    return some([f"{name[:80]!a} ({len(state)} keys)" for name, state in known.items()])


def stripped(state: Mapping[str, np.ndarray], prefix: str | None) -> tuple[State, list[str]]:
    """A state_dict whose keys have no prefix any more, and a line for what is left out.

    Args:
        state: The state_dict.
        prefix: The keys to take begin with it, all others are left out. By default known prefixes are taken off that
            all keys have, and `module.` wherever keys begin with it.
    """
    if prefix is not None:
        chosen = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not chosen:
            raise UserError(f"no key begins with {prefix!a}; there are {some(list(state))}")
        rest = [key for key in state if not key.startswith(prefix)]
        return chosen, [f"left out, for they do not begin with {prefix}: {some(rest)}"] if rest else []
    inner = {key.removeprefix("module."): value for key, value in state.items()}
    if len(inner) < len(state):
        raise UserError("the weights have keys that differ only by 'module.'; save one of the two models")
    for _ in range(_DEEPEST):
        common = next((each for each in _PREFIXES if inner and all(key.startswith(each) for key in inner)), "")
        inner = {key.removeprefix(common): value for key, value in inner.items()}
    return inner, []


def without_classifier(state: Mapping[str, np.ndarray]) -> tuple[State, list[str]]:
    """A state_dict without the layer that turns features into classes, and a line for it if there was one."""
    kinds = set(_CLASSIFIERS)
    if any(key.startswith(("head.mlp.", "head.last_layer.")) for key in state):
        kinds.remove("head")  # of prototypes, not of classes
    classifier = [key for key in state if key.removeprefix("backbone.").split(".")[0] in kinds]
    rest = {key: value for key, value in state.items() if key not in classifier}
    return rest, [f"left out, the classifier: {some(classifier)}"] if classifier else []


def split_prefixes(state: Mapping[str, np.ndarray]) -> tuple[State, State]:
    """A state_dict's backbone and head, without the prefixes `backbone.` and `head.`.

    A bare state_dict, where no key begins with `backbone.`, is all backbone.
    """
    if not any(key.startswith("backbone.") for key in state):
        return dict(state), {}
    if strays := [key for key in state if not key.startswith(("backbone.", "head."))]:
        raise UserError(
            f"the weights have {strays[0]!a} beside backbone.* and head.*; leave out what is neither, or take the "
            "backbone alone with --strip backbone."
        )
    backbone, head = (
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        for prefix in ("backbone.", "head.")
    )
    return backbone, head


def some(items: Collection[str], most: int = 8) -> str:
    """Some of many things, and how many more there are."""
    return ", ".join(list(items)[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
