"""Products, convolutions and windows in ONNX, as `operators` has all else.

ONNX has channels in front of rows and columns, and JAX behind them: what goes into a convolution or a window is
transposed, and what comes out again. Runtimes remove most of these pairs.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cion_jax.export.onnx.graph import Graph, Value, scalar


def dot(graph: Graph, equation: Any, left: Value, right: Value) -> Value:
    """A product over any axes, as MatMul: axes that both share, then one of rows, and one that is summed."""
    (left_summed, right_summed), (left_shared, right_shared) = equation.params["dimension_numbers"]
    left_shape, right_shape = (value.aval.shape for value in equation.invars)
    rows = _others(left_shape, left_summed, left_shared)
    columns = _others(right_shape, right_summed, right_shared)
    if not left_shared and len(left_summed) == 1 and left_summed[0] == len(left_shape) - 1 and len(right_shape) == 2:
        return graph.add("MatMul", left, _transposed(graph, right, [*right_summed, *columns]))
    left = _transposed(graph, left, [*left_shared, *rows, *left_summed])
    right = _transposed(graph, right, [*right_shared, *right_summed, *columns])
    shared, row_lengths, column_lengths, summed = (
        [shape[axis] for axis in axes]
        for shape, axes in (
            (left_shape, left_shared),
            (left_shape, rows),
            (right_shape, columns),
            (left_shape, left_summed),
        )
    )
    if len(rows) != 1 or len(summed) != 1:
        left = graph.reshape(left, [*shared, math.prod(row_lengths), math.prod(summed)])
    if len(columns) != 1 or len(summed) != 1:
        right = graph.reshape(right, [*shared, math.prod(summed), math.prod(column_lengths)])
    y = graph.add("MatMul", left, right)
    return y if len(rows) == len(columns) == 1 else graph.reshape(y, equation.outvars[0].aval.shape)


def convolution(graph: Graph, equation: Any, x: Value, kernel: Value) -> Value:
    parameters = equation.params
    assert set(parameters["lhs_dilation"]) == {1} and parameters["batch_group_count"] == 1
    layout = parameters["dimension_numbers"]
    y = graph.add(
        "Conv",
        _transposed(graph, x, layout.lhs_spec),
        _transposed(graph, kernel, layout.rhs_spec),
        strides=[*parameters["window_strides"]],
        pads=_edges(parameters["padding"]),
        dilations=[*parameters["rhs_dilation"]],
        group=parameters["feature_group_count"],
    )
    return _transposed(graph, y, [*np.argsort(layout.out_spec)])


def max_window(graph: Graph, equation: Any, x: Value) -> Value:
    return _window(graph, equation, x, "MaxPool")


def sum_window(graph: Graph, equation: Any, x: Value) -> Value:
    """As many times the mean as the window has places."""
    mean = _window(graph, equation, x, "AveragePool", count_include_pad=1)
    return graph.add("Mul", mean, scalar(math.prod(equation.params["window_dimensions"])))


def _window(graph: Graph, equation: Any, x: Value, operator: str, **attributes: int) -> Value:
    parameters = equation.params
    sizes, strides, edges = (parameters[name] for name in ("window_dimensions", "window_strides", "padding"))
    assert sizes[0] == sizes[-1] == 1 and {*parameters["window_dilation"], *parameters["base_dilation"]} == {1}
    x = _transposed(graph, x, (0, 3, 1, 2))
    y = graph.add(
        operator, x, kernel_shape=[*sizes[1:3]], strides=[*strides[1:3]], pads=_edges(edges[1:3]), **attributes
    )
    return _transposed(graph, y, (0, 2, 3, 1))


def _edges(edges: Sequence[tuple[int, int]]) -> list[int]:
    """All that is put in front, then all that is put behind."""
    return [int(edge[side]) for side in (0, 1) for edge in edges]


def _others(shape: Sequence[Any], *axes: Sequence[int]) -> list[int]:
    taken = {axis for some in axes for axis in some}
    return [axis for axis in range(len(shape)) if axis not in taken]


def _transposed(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    order = [int(axis) for axis in axes]
    if order == sorted(order):
        return x
    return x.transpose(order) if isinstance(x, np.ndarray) else graph.add("Transpose", x, perm=order)
