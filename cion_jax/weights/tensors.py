"""Tensors as PyTorch's pickles describe them, and the names and calls in those pickles that weights need.

A global of a pickle stays a name, and a call of most of them too; only few calls become something: plain containers,
sizes, and tensors, which are records of where their numbers lie. A name that weights never need is refused.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from cion_jax.errors import UserError
from cion_jax.weights.arrays import STORAGES, State, raw_type, to_plain

_MOST_AXES = 64  # numpy's own limit
_MOST_GROWTH = 16  # tied weights share their bytes in the file, but a few bytes must not fill the memory
_LEAST_ROOM = 1 << 20

_T = TypeVar("_T")

ORDERED = "collections.OrderedDict"
_DEFAULT = "collections.defaultdict"
_SIZE = "torch.Size"
TENSOR = "torch._utils._rebuild_tensor_v2"
_TENSORS = {TENSOR, "torch._utils._rebuild_tensor"}  # the latter before torch 0.4
_PARAMETERS = {f"torch._utils._rebuild_parameter{ending}" for ending in ("", "_with_state")}
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"  # of tensors that carry attributes, as buffers and parameters may
_KINDS = {storage: name for name, storage in STORAGES.items()} | {
    "torch.UntypedStorage": "uint8",
    "torch.storage.UntypedStorage": "uint8",
}
_PLAIN_TYPES = ("bool", "bytearray", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str")
_ARRAYS = ("numpy.core", "numpy._core")
# Seen among the settings that are saved beside weights; they stay names, whatever they are called with.
_INERT = {
    "argparse.Namespace",
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _PLAIN_TYPES),
    *("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
    "torch.storage.TypedStorage",
    "torch.device",
    "_codecs.encode",
    *("numpy.dtype", "numpy.ndarray"),
    *(f"{module}.multiarray.{name}" for module in _ARRAYS for name in ("scalar", "_reconstruct")),
    *(f"{module}.numeric._frombuffer" for module in _ARRAYS),
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")),
    *(f"torch.{name}" for name in (*STORAGES, "complex64", "complex128")),
}
_KNOWN = {ORDERED, _DEFAULT, _SIZE, *_TENSORS, *_PARAMETERS, _SUBCLASS, *_KINDS, *_INERT}


@dataclass(frozen=True)
class Named:
    """A global of the pickle, or the result of calling it: only its name is kept."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: type, name of the entry, count of elements."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def checked(value: object, kind: type[_T]) -> _T:
    """The value, which must be of a type."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} in the place of a {kind.__name__}")
    return value


def named(name: str) -> Named:
    """A global, if it is one that files of weights have."""
    if name not in _KNOWN:
        raise UserError(
            f"refused: its pickle asks for {name[:80]!a}, weights never need that; "
            "save only the state_dict, best as .safetensors"
        )
    return Named(name)


def called(function: Any, arguments: Any) -> Any:
    """What a call would give, for the few calls that weights need; all others give a name."""
    name = checked(function, Named).name
    given = checked(arguments, tuple)
    if name == ORDERED:
        if given:  # torch.save sets items one by one; a list of them could be copied a million times
            raise ValueError("an OrderedDict made from a list")
        return {}
    if name == _DEFAULT:
        return {}
    if name == _SIZE:
        return _counts(*given)
    if name == _SUBCLASS:
        return _tensor_called(*given[:3:2])
    if name in _TENSORS:
        storage, offset, shape, strides = given[:4]
        return _tensor(checked(storage, Storage), offset, _counts(shape), _counts(strides))
    if name in _PARAMETERS:
        return checked(given[0], Tensor)
    return function


def _tensor_called(function: Any, arguments: Any) -> Tensor:
    """A tensor of a subclass, as the plain one that it is made of."""
    if checked(function, Named).name not in _TENSORS:
        raise ValueError("a subclass of something else than a tensor")
    return checked(called(function, arguments), Tensor)


def _counts(values: Any) -> tuple[int, ...]:
    """Sizes, strides or the like as a tuple, after making sure that they are."""
    if type(values) not in (tuple, list) or len(values) > _MOST_AXES:
        raise ValueError("sizes or strides that are no short list")
    if any(type(value) is not int or not 0 <= value < 2**63 for value in values):
        raise ValueError("sizes or strides that are no counts")
    return tuple(values)


def _tensor(storage: Storage, offset: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    _counts((offset,))
    if len(shape) != len(strides):
        raise ValueError(f"a tensor of {len(shape)} sizes and {len(strides)} strides")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.count:
        raise ValueError(f"a tensor that reaches element {last} of {storage.count} in storage {storage.key!a}")
    if math.prod(shape) > storage.count:  # a stride of 0 would make terabytes out of one number
        raise UserError(f"it has a tensor of {shape} that repeats {storage.count} numbers; save it after .contiguous()")
    return Tensor(storage, offset, shape, strides)


def storage_of(identity: Any) -> Storage:
    """The storage that a persistent id of a pickle describes."""
    tag, kind, key, location, count, *view = checked(identity, tuple)
    if view not in ([], [None]):  # before 1.6 a storage could be a part of another
        raise UserError("it has storages inside of storages; load it with an old torch and save it again")
    if tag != "storage" or type(kind) is not Named or kind.name not in _KINDS or type(location) is not str:
        raise ValueError("a reference to something else than a storage")
    return Storage(_KINDS[kind.name], checked(key, str), *_counts((count,)))


def read_tensors(tensors: Mapping[str, Tensor], size: int, numbers: Callable[[Storage], np.ndarray]) -> State:
    """The arrays of tensors in a file of `size` bytes; `numbers` reads all elements of a storage, as `raw_type` has
    them. Each storage is read once and dropped before the next."""
    total = sum(tensor.count * raw_type(tensor.storage.kind).itemsize for tensor in tensors.values())
    if total > max(_MOST_GROWTH * size, _LEAST_ROOM):
        raise UserError(f"its tensors would take {total} bytes, the file has {size}; save it without shared storages")
    keys_by_storage: dict[Storage, list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        keys_by_storage[tensor.storage].append(key)
    state: State = {}
    for storage, keys in keys_by_storage.items():
        elements = numbers(storage)
        state |= {key: to_plain(_view(elements, tensors[key]), storage.kind) for key in keys}
    return {key: state[key] for key in tensors}  # in their order


def _view(numbers: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The elements of a tensor, which was checked to lie inside its storage."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    # The stride of an axis with one index is never used and may be anything.
    steps = (stride if size > 1 else 0 for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    strides = [step * numbers.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
