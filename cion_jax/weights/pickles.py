"""The pickles inside PyTorch's weight files, read and written without PyTorch and without running anything in them.

Python's own unpickler imports, calls and sets whatever a pickle names, and some pickles crash it (deeply nested keys,
far-off memo slots). The machine here only stacks up plain data: a global stays a name, a tensor becomes a record of
where its numbers lie, and every name that weights never need is refused.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from cion_jax.errors import UserError
from cion_jax.weights.tensors import Named, Storage, called, checked, named, storage_of

MOST_BYTES = 64 << 20
MOST_STEPS = 4 << 20  # an empty dict takes one byte of pickle and 64 of memory
_MOST_KEY_BITS = 64


def load(data: bytes | BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """What a pickle holds, in dicts, lists, tuples, plain values, `Tensor`, `Storage` and `Named`.

    Args:
        data: The pickle, or where a file has one; read to its end and no further.
        storages: Takes every storage that the pickle refers to, by key.
    """
    if isinstance(data, bytes) and len(data) > MOST_BYTES:
        raise UserError(f"its pickle has {len(data)} bytes, more than {MOST_BYTES}; save only the state_dict")
    machine = _Machine({} if storages is None else storages)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number >= MOST_STEPS:
            raise UserError(f"its pickle has more than {MOST_STEPS} steps; save only the state_dict")
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack machine of pickles, without the opcodes that import, call or set attributes."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
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
        checked(self.stack[-1], list).extend(items)

    def update(self, items: list[Any]) -> None:
        """Set keys and values, in turn, in the dict on top of the stack."""
        target = checked(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def take(self, count: int) -> list[Any]:
        """The last `count` things, off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def refer(self, identity: Any) -> Storage:
        """The storage that a reference names; two of one name must be the same."""
        storage = storage_of(identity)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"two storages called {storage.key!a}")
        return storage


def _key(value: Any) -> Any:
    """A key that is quick to hash: nested tuples overflow the C stack, endless numbers take endless time."""
    if isinstance(value, int) and value.bit_length() > _MOST_KEY_BITS:
        raise ValueError("a number too long for a key")
    if not isinstance(value, str | bytes | int | float | Named | None):
        raise ValueError(f"a {type(value).__name__} as key of a dict")
    return value


def _unchanged(target: Any, state: Any) -> Any:
    """Attributes are of no use to weights: those of a state_dict (its versions) and of settings are left out."""
    if type(target) not in (dict, Named):
        raise ValueError(f"attributes for a {type(target).__name__}")
    return target


_IGNORED = {"PROTO", "FRAME", "STOP"}
_ARGUMENTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),  # the latter two of Python 2
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # nothing is hashed that need not be
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
    "GLOBAL": lambda machine, name: machine.push(named(name.replace(" ", ".", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.replace(2, lambda *names: named(".".join(names))),
    "REDUCE": lambda machine, _: machine.replace(2, called),
    "NEWOBJ": lambda machine, _: machine.replace(2, called),
    "BUILD": lambda machine, _: machine.replace(2, _unchanged),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_to_mark()),
    "BINPERSID": lambda machine, _: machine.replace(1, machine.refer),
}
