"""What a primitive of JAX becomes in ONNX, but for products and windows, which `products` has.

Each function takes the graph, JAX's equation (its parameters, and the shapes of what comes in and out) and the values
that come in, and returns the value that comes out, or a list where the primitive gives several.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from cion_jax.export.onnx import products
from cion_jax.export.onnx.graph import Graph, Tensor, Value, integers, scalar

Operator = Callable[..., Value | list[Tensor]]


def named(operator: str) -> Operator:
    """The same by another name; both broadcast alike."""
    return lambda graph, equation, *inputs: graph.add(operator, *inputs)


def same(graph: Graph, equation: Any, x: Value) -> Value:
    return x


def square(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("Mul", x, x)


def integer_pow(graph: Graph, equation: Any, x: Value) -> Tensor:
    exponent = equation.params["y"]
    return square(graph, equation, x) if exponent == 2 else graph.add("Pow", x, scalar(exponent))


def rsqrt(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def erfc(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("Sub", scalar(1), graph.add("Erf", x))


def cast(graph: Graph, equation: Any, x: Value) -> Value:
    given, wanted = equation.invars[0].aval.dtype, equation.params["new_dtype"]
    return x if given == wanted else graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(wanted)))


def select(graph: Graph, equation: Any, which: Value, *cases: Value) -> Value:
    if isinstance(which, np.ndarray) and which.size == 1:
        return cases[int(which.item())]
    otherwise, chosen = cases
    return graph.add("Where", which, chosen, otherwise)


def reduce_sum(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("ReduceSum", x, integers(equation.params["axes"]), keepdims=0)


def reduce_max(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("ReduceMax", x, axes=[*equation.params["axes"]], keepdims=0)


def broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    """New axes of length 1, and only where they are longer an expansion."""
    given = equation.invars[0].aval.shape
    wanted = equation.outvars[0].aval.shape
    lengths = [1] * len(wanted)
    for length, axis in zip(given, equation.params["broadcast_dimensions"], strict=True):
        lengths[axis] = length
    x = x if tuple(lengths) == given else graph.reshape(x, lengths)
    return x if tuple(lengths) == wanted else graph.expand(x, wanted)


def reshape(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.reshape(x, equation.outvars[0].aval.shape)


def transpose(graph: Graph, equation: Any, x: Value) -> Tensor:
    return graph.add("Transpose", x, perm=[*equation.params["permutation"]])


def concatenate(graph: Graph, equation: Any, *parts: Value) -> Tensor:
    return graph.add("Concat", *parts, axis=equation.params["dimension"])


def stack(graph: Graph, equation: Any, *parts: Value) -> Tensor:
    axis = equation.params["axis"]
    return graph.add("Concat", *[graph.add("Unsqueeze", part, integers([axis])) for part in parts], axis=axis)


def unstack(graph: Graph, equation: Any, x: Value) -> list[Tensor]:
    axis = equation.params["axis"]
    return [graph.add("Gather", x, np.array(number), axis=axis) for number in range(len(equation.outvars))]


def split(graph: Graph, equation: Any, x: Value) -> list[Tensor]:
    sizes = equation.params["sizes"]
    return graph.add_many("Split", len(sizes), x, integers(sizes), axis=equation.params["axis"])


def cut(graph: Graph, equation: Any, x: Value) -> Value:
    """A slice, along those axes from which anything is left out."""
    lengths = equation.invars[0].aval.shape
    strides = equation.params["strides"] or [1] * len(lengths)
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    rows = zip(range(len(lengths)), starts, ends, strides, lengths, strict=True)
    axes = [row for row in rows if row[1:4] != (0, row[4], 1)]
    if not axes:
        return x
    numbers, starts, ends, strides, _ = zip(*axes, strict=True)
    return graph.add("Slice", x, integers(starts), integers(ends), integers(numbers), integers(strides))


def pad(graph: Graph, equation: Any, x: Value, value: Value) -> Value:
    """Along each axis: `inner` of the value between neighbours, then `low` and `high` around, or cut off if below 0."""
    shape = [*equation.invars[0].aval.shape]
    edges = [tuple(map(int, edge)) for edge in equation.params["padding_config"]]
    for axis, (_, _, inner) in enumerate(edges):
        if inner:
            x = _spread(graph, x, value, shape, axis, inner)
            shape[axis] += inner * (shape[axis] - 1)
    lows, highs = ([edge[side] for edge in edges] for side in (0, 1))
    if any(length < 0 for length in lows + highs):
        axes = [axis for axis, (low, high, _) in enumerate(edges) if low < 0 or high < 0]
        starts = [max(-lows[axis], 0) for axis in axes]
        ends = [shape[axis] + min(highs[axis], 0) for axis in axes]
        x = graph.add("Slice", x, integers(starts), integers(ends), integers(axes))
    around = [max(length, 0) for length in lows + highs]
    return graph.add("Pad", x, integers(around), value) if any(around) else x


def _spread(graph: Graph, x: Value, value: Value, shape: list[Any], axis: int, inner: int) -> Tensor:
    """The value between neighbours along an axis: behind each element, without those behind the last."""
    longer = [*shape[: axis + 1], 1, *shape[axis + 1 :]]
    edges = [0] * (2 * len(longer))
    edges[len(longer) + axis + 1] = inner
    x = graph.add("Pad", graph.reshape(x, longer), integers(edges), value)
    x = graph.reshape(x, [*shape[:axis], shape[axis] * (1 + inner), *shape[axis + 1 :]])
    return graph.add("Slice", x, integers([0]), integers([-inner]), integers([axis]))


#: By the name of JAX's primitive.
OPERATORS: dict[str, Operator] = {
    **{name: named(name.title()) for name in ("add", "sub", "mul", "div", "max", "min", "neg", "exp", "sqrt", "pow")},
    "add_any": named("Add"),
    "logistic": named("Sigmoid"),
    "stop_gradient": same,
    "copy": same,
    "square": square,
    "integer_pow": integer_pow,
    "rsqrt": rsqrt,
    "erfc": erfc,
    "convert_element_type": cast,
    "select_n": select,
    "reduce_sum": reduce_sum,
    "reduce_max": reduce_max,
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "transpose": transpose,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "slice": cut,
    "pad": pad,
    "dot_general": products.dot,
    "conv_general_dilated": products.convolution,
    "reduce_window_max": products.max_window,
    "reduce_window_sum": products.sum_window,
}
