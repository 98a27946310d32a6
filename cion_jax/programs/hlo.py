"""A compiled program, parsed from the text that XLA prints.

XLA calls a function in a program a computation. The program itself is the one called ENTRY; loops, fusions and branches
call others.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from math import prod
from typing import NamedTuple

#: The first line of a computation: `%fused_computation.3 (param_0: f32[8,4], param_1: s32[]) -> f32[8] {`; the one with
#: ENTRY is the program itself. Groups: ENTRY or None, name.
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
#: An operation: `  ROOT %add.5 = f32[8,4]{1,0} add(%p.1, %p.2), metadata={...}`; the result may be a tuple
#: `(f32[8], s32[])`. Groups: ROOT or None, name, shape of the result, kind, all that stands behind the bracket.
_OPERATION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.+?) ([\w-]+)\((.*)$")
#: An array in a shape: `f32[8,4]{1,0:T(8,128)S(1)}`, `pred[]`, `f8e4m3fn[16]`. Groups: type, its bits (none for pred),
#: sides, order of the axes from the innermost out, and what follows it: tiles, and the memory that it lives in.
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](?:\{([\d,]*):?([^}]*)\})?")
#: A name that an operation mentions: `%add.5`.
_NAME = re.compile(r"%([\w.-]+)")
#: Computations that an operation calls: `calls=%fused.3`, `body=%region.1`, `branch_computations={%a, %b}`. A loop's
#: `condition=` is left out: it is read and written by nobody else.
_CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations)=\{?((?:%[\w.-]+(?:, )?)+)")
_CONDITION = re.compile(r"condition=%([\w.-]+)")
#: How often a `while` runs, where XLA says it: `"known_trip_count":{"n":"12"}`.
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
#: A row of the tables before the first computation, which say where in the source an operation comes from.
_ROW = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})$")


class ArrayType(NamedTuple):
    """An array of a program."""

    dtype: str
    """As XLA writes it: f32, bf16, pred."""
    bits: int
    """Of an element."""
    shape: tuple[int, ...]
    tile: tuple[int, int]
    """The last two sides in memory are multiples of these."""
    inner_first: tuple[int, ...]
    """The axes, from the innermost out."""
    is_on_chip: bool
    """Whether it lives in fast memory on the chip, so that it costs no traffic."""

    @property
    def bytes(self) -> int:
        """What it takes in memory, padded to whole tiles."""
        sides = [self.shape[axis] for axis in self.inner_first or reversed(range(len(self.shape)))]
        padded = [-(-side // of) * of for side, of in zip(sides, self.tile[::-1], strict=False)]
        return prod([*padded, *sides[2:]]) * self.bits // 8

    @property
    def traffic(self) -> int:
        """Bytes that pass the device's memory when it is read or written."""
        return 0 if self.is_on_chip else self.bytes


class Operation(NamedTuple):
    """A line of a compiled program."""

    name: str
    kind: str
    arrays: tuple[ArrayType, ...]
    """Its result; more than one of a tuple."""
    operands: tuple[str, ...]
    """Names of the operations that it reads; of a parameter, its number; of a constant, its value."""
    rest: str
    """What stands behind the operands: `calls=`, `body=`, `window=`, `metadata=`, `backend_config=`."""
    is_root: bool
    """Whether its result is that of its computation."""

    @property
    def traffic(self) -> int:
        """Bytes of its result that are not on the chip."""
        # A library call has its workspace as a second result, which is no traffic that it must have.
        return sum(array.traffic for array in self.arrays[: 1 if self.kind == "custom-call" else None])

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        return [name for names in _CALLED.findall(self.rest) for name in _NAME.findall(names)]

    @property
    def path(self) -> str:
        """Where in the traced functions it comes from, such as `jit(step)/crops/mul`; empty where XLA made it up."""
        match = _OP_NAME.search(self.rest)
        return match[1] if match else ""


#: Operations of a computation, by name.
Computation = dict[str, Operation]


class Program:
    """A compiled program: its computations, and where in the source its operations come from."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        self.header: list[str] = []
        for line in text.splitlines():
            if header := _COMPUTATION.match(line):
                self.computations[header[2]] = computation = {}
                self.entry = header[2] if header[1] else self.entry
            elif not self.computations:
                self.header.append(line)
            elif match := _OPERATION.match(line):
                operation = _operation(match)
                computation[operation.name] = operation

    def kernels(self, name: str | None = None, times: int = 1) -> Iterator[tuple[Computation, Operation, int]]:
        """What runs as a kernel of its own, the computation that it stands in, and how often it runs; loops are gone
        through, and of branches the longest, since one of them runs."""
        computation = self.computations[name or self.entry]
        for operation in computation.values():
            inside = operation.called if operation.kind in ("while", "call", "conditional", "async-start") else []
            if operation.kind == "conditional":
                inside = [max(inside, key=lambda name: len(self.computations[name]))]
            turns = times * (self.turns(operation) if operation.kind == "while" else 1)
            for called in inside:
                yield from self.kernels(called, turns)
            if not inside:
                yield computation, operation, times

    def turns(self, loop: Operation) -> int:
        """How often a loop runs: as XLA says, or else up to the constant that its counter is compared with; 1 where it
        cannot be told."""
        if trips := _TRIPS.search(loop.rest):
            return int(trips[1])
        condition = _CONDITION.search(loop.rest)
        operations = self.computations[condition[1]].values() if condition else ()
        constants = [each.operands[0] for each in operations if each.kind == "constant"]
        return max((int(value) for value in constants if value.isdigit()), default=1)

    def source(self, operation: Operation, package: str) -> str:
        """The innermost line of a package that an operation comes from, as `data/augment.py:207`; empty where XLA has
        kept none."""
        frame = _FRAME.search(operation.rest)
        number = int(frame[1]) if frame else 0
        while number:
            location, number = self._frames[number]
            file, line = self._locations[location]
            _, found, inside = self._files[file].rpartition(f"/{package}/")
            if found:
                return f"{inside}:{line}"
        return ""

    @cached_property
    def _files(self) -> dict[int, str]:
        return {number: text for number, text, _ in self._table("FileNames")}

    @cached_property
    def _locations(self) -> dict[int, tuple[int, int]]:
        rows = self._table("FileLocations")
        return {number: (fields["file_name_id"], fields["line"]) for number, _, fields in rows}

    @cached_property
    def _frames(self) -> dict[int, tuple[int, int]]:
        rows = self._table("StackFrames")
        return {
            # A frame without a parent names itself.
            number: (fields["file_location_id"], parent if (parent := fields["parent_frame_id"]) != number else 0)
            for number, _, fields in rows
        }

    def _table(self, title: str) -> Iterator[tuple[int, str, dict[str, int]]]:
        """Rows of a table in the program's header: number, text, fields."""
        lines = iter(self.header)
        if title not in lines:
            return
        for line in lines:
            if not (match := _ROW.match(line)):
                return
            fields = dict(field.split("=") for field in (match[3] or "").split())
            yield int(match[1]), match[2] or "", {name: int(value) for name, value in fields.items()}


def _operation(match: re.Match[str]) -> Operation:
    root, name, shape, kind, rest = match.groups()
    inside, _, attributes = rest.partition(")")
    operands = (inside,) if kind in ("parameter", "constant") else tuple(_NAME.findall(inside))
    return Operation(name, kind, tuple(arrays_in(shape)), operands, attributes, bool(root))


def arrays_in(shape: str) -> Iterator[ArrayType]:
    """The arrays of a shape or a tuple of shapes; pred is XLA's bool, a byte each."""
    for dtype, bits, sides, order, layout in _ARRAY.findall(shape):
        tile = re.match(r"T\((?:(\d+),)?(\d+)\)", layout)
        yield ArrayType(
            dtype,
            8 if dtype == "pred" else int(bits),
            tuple(int(side) for side in sides.split(",") if side),
            (int(tile[1] or 1), int(tile[2])) if tile else (1, 1),
            tuple(int(axis) for axis in order.split(",") if axis),
            "S(1)" in layout,
        )
