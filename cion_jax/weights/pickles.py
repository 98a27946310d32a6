"""The pickles inside PyTorch's weight files, read and written without PyTorch and without running anything in them.

Python's own unpickler imports, calls and sets whatever a pickle names, and some pickles crash it (deeply nested keys,
far-off memo slots). The machine here only stacks up plain data: a global stays a name, a tensor becomes a record of
where its numbers lie, and every name that weights never need is refused.
"""

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from cion_jax.errors import UserError
from cion_jax.weights.arrays import STORAGES

MOST_BYTES = 64 << 20
MOST_STEPS = 4 << 20  # an empty dict takes one byte of pickle and 64 of memory
_MOST_KEY_BITS = 64
_MOST_AXES = 64  # numpy's own limit

_T = TypeVar("_T")

ORDERED = "collections.OrderedDict"
_SIZE = "torch.Size"
TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_KINDS = {storage: name for name, storage in STORAGES.items()} | {
    "torch.UntypedStorage": "uint8",
    "torch.storage.UntypedStorage": "uint8",
}
# Seen among the settings that are saved beside weights; they stay names, whatever they are called with.
_INERT = {
    "argparse.Namespace",
    "torch.storage.TypedStorage",
    "torch.device",
    "_codecs.encode",
    "numpy.dtype",
    *(f"{module}.scalar" for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *(f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")),
    *(f"torch.{name}" for name in (*STORAGES, "complex64", "complex128")),
}
_KNOWN = {ORDERED, _SIZE, TENSOR, _PARAMETER, *_KINDS, *_INERT}


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


def load(data: bytes) -> Any:
    """What a pickle holds, in dicts, lists, tuples, plain values, `Tensor`, `Storage` and `Named`."""
    if len(data) > MOST_BYTES:
        raise UserError(f"its pickle has {len(data)} bytes, more than {MOST_BYTES}; save only the state_dict")
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number >= MOST_STEPS:
            raise UserError(f"its pickle has more than {MOST_STEPS} steps; save only the state_dict")
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack machine of pickles, without the opcodes that import, call or set attributes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Obey one opcode."""
        if name in _IGNORED:
            return
        if name in _ARGUMENTS:
            self.push(argument)
        elif name in _MAKERS:
            self.push(_MAKERS[name]())
        elif name in _MOVES:
            _MOVES[name](self, argument)
        else:
            raise UserError(f"refused: its pickle uses {name}, weights never need that; save it with torch.save")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        """Everything above the last mark."""
        above, self.stack = self.stack, self.marks.pop()
        return above

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def replace(self, count: int, make: Callable[..., Any]) -> None:
        """Put what `make` says in the place of the last `count` things."""
        if len(self.stack) < count:
            raise ValueError("its stack runs dry")
        arguments = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.stack.append(make(*arguments))

    def put(self, slot: int) -> None:
        self.memo[slot] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        """Add to the list on top of the stack."""
        _checked(self.stack[-1], list).extend(items)

    def update(self, items: list[Any]) -> None:
        """Set keys and values, in turn, in the dict on top of the stack."""
        target = _checked(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def take(self, count: int) -> list[Any]:
        """The last `count` things, off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]


def _checked(value: object, kind: type[_T]) -> _T:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} in the place of a {kind.__name__}")
    return value


def _key(value: Any) -> Any:
    """A key that is quick to hash: nested tuples overflow the C stack, endless numbers take endless time."""
    if isinstance(value, int) and value.bit_length() > _MOST_KEY_BITS:
        raise ValueError("a number too long for a key")
    if not isinstance(value, str | bytes | int | float | None):
        raise ValueError(f"a {type(value).__name__} as key of a dict")
    return value


def _named(name: str) -> Named:
    if name not in _KNOWN:
        raise UserError(
            f"refused: its pickle asks for {name[:80]!a}, weights never need that; "
            "save only the state_dict, best as .safetensors"
        )
    return Named(name)


def _called(function: Any, arguments: Any) -> Any:
    """What a call would give, for the four calls that weights need; all others give a name."""
    name = _checked(function, Named).name
    given = _checked(arguments, tuple)
    if name == ORDERED:
        if given:  # torch.save sets items one by one; a list of them could be copied a million times
            raise ValueError("an OrderedDict made from a list")
        return {}
    if name == _SIZE:
        return _counts(*given)
    if name == TENSOR:
        storage, offset, shape, strides = given[:4]
        return _tensor(_checked(storage, Storage), offset, _counts(shape), _counts(strides))
    if name == _PARAMETER:
        return _checked(given[0], Tensor)
    return function


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


def _storage(identity: Any) -> Storage:
    tag, kind, key, location, count = _checked(identity, tuple)
    if tag != "storage" or type(kind) is not Named or kind.name not in _KINDS or type(location) is not str:
        raise ValueError("a reference to something else than a storage")
    return Storage(_KINDS[kind.name], _checked(key, str), *_counts((count,)))


def _unchanged(target: Any, state: Any) -> Any:
    """Attributes are of no use to weights: those of a state_dict (its versions) and of settings are left out."""
    if type(target) not in (dict, Named):
        raise ValueError(f"attributes for a {type(target).__name__}")
    return target


_IGNORED = {"PROTO", "FRAME", "STOP"}
_ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_MOVES: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.mark(),
    "BINPUT": lambda machine, slot: machine.put(slot),
    "LONG_BINPUT": lambda machine, slot: machine.put(slot),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": lambda machine, slot: machine.push(machine.memo[slot]),
    "LONG_BINGET": lambda machine, slot: machine.push(machine.memo[slot]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.replace(1, lambda *items: items),
    "TUPLE2": lambda machine, _: machine.replace(2, lambda *items: items),
    "TUPLE3": lambda machine, _: machine.replace(3, lambda *items: items),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.update(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.push(_named(name.replace(" ", ".", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.replace(2, lambda *names: _named(".".join(names))),
    "REDUCE": lambda machine, _: machine.replace(2, _called),
    "NEWOBJ": lambda machine, _: machine.replace(2, _called),
    "BUILD": lambda machine, _: machine.replace(2, _unchanged),
    "BINPERSID": lambda machine, _: machine.replace(1, _storage),
}
