"""What a kernel of a compiled program costs: the bytes that it moves, and the operations that its products need.

A kernel reads its inputs and writes its outputs once. Caches may spare some of that, so that a kernel of small arrays
may be faster than its bytes allow.
"""

import re
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np

from cion_jax.programs.hlo import ArrayType, Computation, Operation, Program

#: Kinds that are no kernels: they name, pack or rename what is there already.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id")
#: Kinds that read as many bytes of their first operand as they write.
_SLICES = ("slice", "dynamic-slice", "gather")
#: Copies that run beside other kernels, and which array of their result is the copy.
_COPIES = {"copy-start": 0, "slice-start": 1}
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
#: How XLA asks for three products: on TPUs, and on GPUs.
_THREE = re.compile(r"operand_precision=\{high,|algorithm=\w+_x3")
_CONTRACTED = re.compile(r'lhs_contracting_dim(?:s=\{|ensions":\[)"?([\d,"]*)')


class Product(NamedTuple):
    """A convolution or a product of matrices."""

    operation: Operation
    dtype: str
    """Of its operands, as XLA writes it."""
    passes: int
    """Products of bfloat16 that it takes: 6 for float32 at full precision, 3 where a little less will do, or else 1."""
    flops: int


def is_kernel(operation: Operation) -> bool:
    """Whether an operation does anything when it runs."""
    return operation.kind not in _FREE and not operation.kind.endswith("-done")


def traffic(text: str) -> int:
    """Bytes that the kernels of a compiled program, as XLA prints it, read and write; of branches, the longest."""
    program = Program(text)
    return sum(times * moved(program, computation, kernel) for computation, kernel, times in program.kernels())


def moved(program: Program, computation: Computation, kernel: Operation) -> int:
    """Bytes that a kernel reads and writes."""
    if not is_kernel(kernel):
        return 0
    inputs = [computation[name].traffic for name in kernel.operands if name in computation]
    if kernel.kind == "fusion":
        return _fusion_bytes(program.computations[kernel.called[0]], inputs)
    if kernel.kind in _COPIES:
        copy = kernel.arrays[_COPIES[kernel.kind]]
        return copy.bytes * bool(inputs[0]) + copy.traffic
    if kernel.kind.endswith("-start"):  # a collective: its result has the operands in it too
        return 2 * sum(inputs)
    if kernel.kind in _SLICES:
        return kernel.arrays[0].bytes * bool(inputs[0]) + kernel.traffic
    if kernel.kind == "dynamic-update-slice":  # (array, part, place): the part is read, and written in its place
        return 2 * inputs[1]
    return kernel.traffic + sum(inputs)


def _fusion_bytes(fused: Computation, inputs: list[int]) -> int:
    """Bytes that a fusion reads of its inputs and writes: of an array that it only cuts or fills, the part."""
    read = 0
    for name, parameter in fused.items():
        if parameter.kind != "parameter":
            continue
        size = inputs[int(parameter.operands[0])]
        uses = [use for use in fused.values() if name in use.operands]
        if all(use.kind in _SLICES and use.operands[0] == name for use in uses):
            read += min(size, sum(use.arrays[0].bytes for use in uses))
        elif not all(use.kind == "dynamic-update-slice" and use.operands[0] == name for use in uses):
            read += size
    return read + sum(_written(fused, operation) for operation in fused.values() if operation.is_root)


def _written(fused: Computation, operation: Operation) -> int:
    """Bytes that a fusion writes for its result: of an array that is filled in place, the part."""
    if operation.kind in ("tuple", "bitcast"):
        return sum(_written(fused, fused[name]) for name in operation.operands)
    if operation.kind == "dynamic-update-slice":
        return fused[operation.operands[1]].traffic
    return operation.traffic


def products(program: Program, computation: Computation, kernel: Operation) -> Iterator[Product]:
    """The convolutions and products of matrices that a kernel does, as one operation or inside a fusion."""
    if kernel.kind == "fusion":
        inside = program.computations[kernel.called[0]]
        for operation in inside.values():
            yield from products(program, inside, operation)
    elif kernel.kind == "convolution" or "__cudnn$conv" in kernel.rest:
        yield _product(computation, kernel, _convolution_flops(computation, kernel))
    elif kernel.kind == "dot" or "__cublas" in kernel.rest:
        yield _product(computation, kernel, _dot_flops(computation, kernel))


def _product(computation: Computation, operation: Operation, flops: int) -> Product:
    dtype = computation[operation.operands[0]].arrays[0].dtype
    rest = operation.rest.lower()
    passes = 6 if "highest" in rest else 3 if _THREE.search(rest) else 1
    return Product(operation, dtype, passes, flops)


def _dot_flops(computation: Computation, operation: Operation) -> int:
    """Two for each element of the result and each of the axes that are summed over."""
    left = computation[operation.operands[0]].arrays[0]
    match = _CONTRACTED.search(operation.rest)
    axes = [int(axis) for axis in re.findall(r"\d+", match[1])] if match else []
    return 2 * prod(operation.arrays[0].shape) * prod(left.shape[axis] for axis in axes)


def _convolution_flops(computation: Computation, operation: Operation) -> int:
    """Two for each output, each input channel of its group, and each place of the kernel that meets an input, not an
    edge or a gap. XLA's TPU compiler writes products of matrices so too."""
    arrays = [computation[name].arrays[0] for name in operation.operands[:2]]
    inputs, kernel, result = *arrays, operation.arrays[0]
    if "convBackwardInput" in operation.rest:
        inputs, result = result, inputs
    elif "convBackwardFilter" in operation.rest:
        kernel, result = result, kernel
    labels = _LABELS.search(operation.rest)
    assert labels is not None, operation.name
    window = _window(operation.rest)
    meetings = 1
    for axis in range(len(labels[1]) - 2):
        meetings *= _meetings(
            _side(inputs, labels[1], str(axis)),
            _side(result, labels[3], str(axis)),
            _side(kernel, labels[2], str(axis)),
            {name: values[axis] for name, values in window.items()},
        )
    batch = _side(result, labels[3], "b") * _side(result, labels[3], "f")
    return 2 * batch * _side(kernel, labels[2], "i") * meetings


def _side(array: ArrayType, labels: str, label: str) -> int:
    return array.shape[labels.index(label)]


def _window(rest: str) -> dict[str, list[tuple[int, ...]]]:
    """`window={size=3x3 stride=2x2 pad=1_1x1_1 lhs_dilate=2x2}` by name, an entry for each axis."""
    match = _WINDOW.search(rest)
    fields = dict(field.split("=") for field in match[1].split()) if match else {}
    fields.pop("size", None)
    return {name: [tuple(map(int, each.split("_"))) for each in value.split("x")] for name, value in fields.items()}


def _meetings(side: int, result: int, size: int, window: dict[str, tuple[int, ...]]) -> int:
    """Along one axis: pairs of an output and a place of the kernel that stand on an input. A kernel that is turned
    round (`rhs_reversal`) makes as many."""
    (stride,), (gap,), (spread,) = (window.get(name, (1,)) for name in ("stride", "lhs_dilate", "rhs_dilate"))
    edge = window.get("pad", (0, 0))[0]
    places = np.arange(result)[:, None] * stride + np.arange(size) * spread - edge
    is_input = (places >= 0) & (places <= (side - 1) * gap) & (places % gap == 0)
    return int(is_input.sum())
