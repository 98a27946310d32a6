"""A compiled step in figures: memory, collectives, products, bytes, time by the compiler's own estimate, and for what.

Where the compiler gives no estimate, as for GPUs and for few kernels of TPUs, a kernel's time is that of a roofline:
its operations at the device's peak, or its bytes at the rate of its memory, whichever takes longer. What runs beside
other kernels, and what goes between devices, counts as nothing on a TPU.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cion_jax.programs.cost import Product, is_kernel, moved, products
from cion_jax.programs.devices import Sheet
from cion_jax.programs.hlo import Computation, Operation, Program

#: The package whose lines are named as sources.
PACKAGE = "cion_jax"
#: Named scopes of the steps: what a kernel is for.
PARTS = ("crops", "teacher", "student", "loss", "update")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
#: What only moves numbers.
_MOVES = {"copy", "transpose", "bitcast", "reshape", "parameter", "tuple", "get-tuple-element", "slice", "concatenate"}
#: How products are done, by how many of bfloat16 they take.
_PRECISIONS = {1: "", 3: " by three of bf16", 6: " at full precision"}
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Kernel(NamedTuple):
    """Something that runs as one piece, and all of its turns together."""

    part: str
    """What it is for: one of `PARTS`, with "backward" where that is so; "other" where XLA has kept no name."""
    sort: str
    """convolutions and products, reductions, copies, elementwise, or the name of a collective."""
    source: str
    path: str
    flops: int
    bytes: int
    seconds: float
    products: tuple[Product, ...]


class Account(NamedTuple):
    """What a compiled program is and needs, on each device."""

    memory: dict[str, int]
    """Bytes by kind."""
    is_donated: bool | None
    """Whether the whole state is written where the old one was; None where there is no state."""
    kernels: list[Kernel]
    collectives: dict[str, tuple[int, int]]
    """How many, and bytes of their results, by kind."""
    is_estimated: bool
    """Whether seconds are the compiler's estimate, and not a roofline's."""
    code: int
    """Bytes of the program's text."""

    @property
    def total_memory(self) -> int:
        """Bytes at the most."""
        return sum(self.memory.values())

    @property
    def seconds(self) -> float:
        """Of a step, kernels one after the other."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """Of convolutions and products."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        """Read and written."""
        return sum(kernel.bytes for kernel in self.kernels)

    def shares(self, of: str, what: str = "seconds") -> dict[str, float]:
        """Seconds, or bytes, by `part`, `sort` or `source`, the largest first."""
        total: defaultdict[str, float] = defaultdict(float)
        for kernel in self.kernels:
            total[getattr(kernel, of)] += getattr(kernel, what)
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def operand_types(self) -> dict[str, tuple[int, int]]:
        """Convolutions and products, and their operations, by the type of their operands."""
        counts: Counter[str] = Counter()
        flops: Counter[str] = Counter()
        for kernel in self.kernels:
            for product in kernel.products:
                name = product.dtype + _PRECISIONS[product.passes]
                counts[name] += 1
                flops[name] += product.flops
        return {name: (counts[name], flops[name]) for name in counts}


def account(compiled: Any, sheet: Sheet, state_leaves: int = 0) -> Account:
    """Read a compiled program.

    Args:
        compiled: What `jax.jit(...).lower(...).compile()` returns.
        sheet: What its devices can do.
        state_leaves: Arrays of the state, which ought to be written where the old ones were.
    """
    text = compiled.as_text() or ""
    program = Program(text)
    kernels = []
    collectives: dict[str, tuple[int, int]] = {}
    is_estimated = False
    for computation, operation, times in program.kernels():
        if not is_kernel(operation):
            continue
        kernels.append(_kernel(program, computation, operation, times, sheet))
        is_estimated |= _CYCLES.search(operation.rest) is not None
        if kernels[-1].sort in COLLECTIVES:
            count, size = collectives.get(kernels[-1].sort, (0, 0))
            own = sum(computation[name].arrays[0].bytes for name in operation.operands if name in computation)
            collectives[kernels[-1].sort] = count + times, size + times * own
    sizes = compiled.memory_analysis()
    memory = {
        "arguments": sizes.argument_size_in_bytes,
        "results beside them": sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        "temporaries": sizes.temp_size_in_bytes,
        "code": sizes.generated_code_size_in_bytes,
    }
    aliased = len(re.findall(r"(?:may|must)-alias", text.partition("\n")[0]))
    is_donated = aliased >= state_leaves if state_leaves else None
    return Account(memory, is_donated, kernels, collectives, is_estimated, len(text))


def _kernel(program: Program, computation: Computation, operation: Operation, times: int, sheet: Sheet) -> Kernel:
    own = tuple(products(program, computation, operation))
    size = moved(program, computation, operation)
    cycles = _CYCLES.search(operation.rest)
    if cycles and sheet.clock:
        seconds = int(cycles[1]) / sheet.clock
    elif sheet.clock and (operation.kind.endswith("-start") or operation.kind in COLLECTIVES):
        seconds = 0.0  # it runs beside something else, or between devices
    else:
        seconds = max(sum(map(sheet.seconds, own)), size / sheet.bandwidth)
    return Kernel(
        part=part_of(operation.path),
        sort=_sort(program, operation, own),
        source=program.source(operation, PACKAGE),
        path=operation.path,
        flops=times * sum(product.flops for product in own),
        bytes=times * size,
        seconds=times * seconds,
        products=own,
    )


def part_of(path: str) -> str:
    """The named scope that an operation's path goes through, such as `jit(step)/transpose(jvp(student))/...`."""
    words = re.findall(r"\w+", path)
    part = next((word for word in words if word in PARTS), "other")
    return f"{part}, backward" if "transpose" in words and part in ("student", "loss") else part


def _sort(program: Program, operation: Operation, own: tuple[Product, ...]) -> str:
    kind = operation.kind.removesuffix("-start")
    if kind in COLLECTIVES:
        return kind
    if own:
        return "convolutions and products"
    kinds = _kinds(program, operation)
    if kinds <= _MOVES or kind in ("copy", "slice"):
        return "copies"
    return "reductions" if any(kind.startswith("reduce") for kind in kinds) else "elementwise"


def _kinds(program: Program, operation: Operation) -> set[str]:
    if operation.kind != "fusion":
        return {operation.kind}
    inside = program.computations[operation.called[0]].values()
    return {kind for each in inside for kind in _kinds(program, each)}


def table(title: str, rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Lines of a Markdown table, whose titles are separated by |."""
    yield f"| {title} |"
    yield "|---" * len(title.split("|")) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def described(account: Account, sheet: Sheet, costliest: int = 10) -> Iterator[str]:
    """An account to read: memory, collectives, operand types, the roofline, parts, and the costliest operations."""
    gb = {name: f"{size / 1e9:,.3f}" for name, size in account.memory.items() if size}
    yield from table("memory of a device|GB", [*gb.items(), ("in all", f"{account.total_memory / 1e9:,.3f}")])
    yield ""
    if account.is_donated is not None:
        yield "The state is written where the old one was." if account.is_donated else "The state is held TWICE."
        yield ""
    rows = [(name, f"{count:,}", f"{size / 1e6:,.1f}") for name, (count, size) in account.collectives.items()]
    yield from table("collective|a step|MB", rows or [("none", "", "")])
    yield ""
    types = account.operand_types().items()
    rows = [(name, f"{count:,}", f"{flops / 1e9:,.1f}") for name, (count, flops) in types]
    yield from table("convolutions and products of|in the program|GFLOP", rows)
    yield ""
    yield roofline(account, sheet)
    yield ""
    for of, title in (("part", "for"), ("sort", "kind")):
        yield from table(f"{title}|ms|share", _timed(account, account.shares(of).items()))
        yield ""
    groups: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for kernel in account.kernels:
        groups[kernel.source or kernel.path, kernel.part, kernel.sort] += kernel.seconds
    largest = sorted(groups.items(), key=lambda item: -item[1])[:costliest]
    named = [(" | ".join(name), seconds) for name, seconds in largest]
    yield from table("the costliest lines|for|kind|ms|share", _timed(account, named))


def _timed(account: Account, seconds: Iterable[tuple[str, float]]) -> Iterator[tuple[str, ...]]:
    total = account.seconds or 1.0
    for name, each in seconds:
        yield name, f"{1e3 * each:,.2f}", f"{each / total:.1%}"


def roofline(account: Account, sheet: Sheet) -> str:
    """In a line: the time that operations and bytes need at the least, and the compiler's estimate where there is
    one."""
    needed = {
        f"operations ({account.flops / 1e9:,.1f} GFLOP)": account.flops / sheet.flops,
        f"bytes ({account.bytes / 1e9:,.2f} GB)": account.bytes / sheet.bandwidth,
    }
    bound = max(needed, key=needed.__getitem__)
    parts = ", ".join(f"{1e3 * seconds:,.2f} ms for {name}" for name, seconds in needed.items())
    kind = "the compiler's own estimate" if account.is_estimated else "kernel by kernel at the roofline"
    used = account.flops / sheet.flops / account.seconds if account.seconds else 0.0
    return (
        f"Roofline: {parts}; bound by {bound.partition(' ')[0]}. A step takes {1e3 * account.seconds:,.2f} ms by "
        f"{kind}: {used:.1%} of the peak."
    )
