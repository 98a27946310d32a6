"""Pytree <-> state_dict by rule. A parameter's path joined by dots is its PyTorch key, except for the last word:

kernel -> weight (transposed), scale -> weight, mean -> running_mean, var -> running_var; all others stay.
"""

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cion_jax.errors import UserError
from cion_jax.models.swin import relative_positions
from cion_jax.models.zoo import place
from cion_jax.weights.arrays import State
from cion_jax.weights.state_dicts import some

_LAST = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # HWIO -> OIHW, IO -> OI
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}


def state_dict(variables: Mapping[str, Any], order: Sequence[str]) -> State:
    """PyTorch's state_dict of a pytree, in PyTorch's order.

    `order` has the names of layers and parameters as PyTorch registers them; wherever two keys first differ it decides.
    """
    state = {key: _to_torch(path, np.asarray(leaf)) for key, path, leaf in _leaves(variables)}
    state |= {key: value for known in list(state) for key, value in _derived(known)}
    return {key: state[key] for key in sorted(state, key=lambda key: place(key, order))}


def from_state_dict(
    template: Mapping[str, Any], state: Mapping[str, np.ndarray], allow: Collection[str] = ()
) -> dict[str, Any]:
    """The pytree with a template's structure, shapes and types, and the values of a state_dict.

    Every key that is missing, unexpected or of another shape is named in one UserError, and so are those with values
    that are not finite, or negative where they are variances. Keys that match a pattern in
    `allow` (such as fc.*) pass: missing and misshapen ones stay as in the template, which then must hold arrays, and
    unexpected ones are left out.
    """
    wanted = {key: (path, leaf) for key, path, leaf in _leaves(template)}
    shapes = {key: _torch_shape(path, leaf.shape) for key, (path, leaf) in wanted.items()}
    derived = {key for known in wanted for key, _ in _derived(known)}
    allowed = {key for key in wanted.keys() | state.keys() for pattern in allow if fnmatch.fnmatchcase(key, pattern)}
    missing = [key for key in wanted if key not in state and key not in allowed]
    unexpected = [key for key in state if key not in wanted and key not in derived and key not in allowed]
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, not {shapes[key]}"
        for key in wanted
        if key in state and key not in allowed and tuple(state[key].shape) != shapes[key]
    ]
    if missing or unexpected or misshapen:
        kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        raise UserError(
            "the weights do not fit: " + "; ".join(f"{len(k)} {kind}: {some(k)}" for kind, k in kinds.items() if k)
        )
    if impossible := [f"{key} {why}" for key in wanted if key in state and (why := _fault(key, state[key]))]:
        raise UserError(f"the weights are damaged, or their training has failed: {some(impossible)}; take others")

    def value(key: str) -> Any:
        path, leaf = wanted[key]
        if key not in state or tuple(state[key].shape) != shapes[key]:
            return leaf
        array = np.asarray(state[key])
        return (array.transpose(_FROM_TORCH[array.ndim]) if path[-1] == "kernel" else array).astype(leaf.dtype)

    keys = iter([key for key, _, _ in _leaves(template)])
    return jax.tree.map(lambda _: value(next(keys)), dict(template))


def _leaves(variables: Mapping[str, Any]) -> Iterator[tuple[str, list[str], Any]]:
    """PyTorch key, path below the collection, and leaf of everything in a pytree."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(dict(variables))[0]:
        names = [entry.key for entry in path[1:]]
        yield ".".join([*names[:-1], _LAST.get(names[-1], names[-1])]), names, leaf


def _to_torch(path: Sequence[str], leaf: np.ndarray) -> np.ndarray:
    return leaf.transpose(_TO_TORCH[leaf.ndim]) if path[-1] == "kernel" else leaf


def _torch_shape(path: Sequence[str], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)]) if path[-1] == "kernel" else tuple(shape)


def _derived(key: str) -> Iterator[tuple[str, np.ndarray]]:
    """Buffers that PyTorch saves beside this one; their values follow from the model."""
    stem, _, last = key.rpartition(".")
    if last == "running_var":
        yield f"{stem}.num_batches_tracked", np.zeros((), np.int64)
    if last == "relative_position_bias_table":
        yield f"{stem}.relative_position_index", relative_positions()


def _fault(key: str, values: np.ndarray) -> str:
    """What numbers no network has; "" where all can be."""
    if not np.isfinite(values).all():
        return "has NaN" if np.isnan(values).any() else "has infinite values"
    return "has negative variances" if key.endswith("running_var") and (values < 0).any() else ""
