"""From a network and its weights to an ONNX model: the traced program, operator by operator.

Whatever does not depend on the images is computed here and stands in the model as a constant.
"""

from collections.abc import Sequence
from functools import partial
from json import dumps
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from cion_jax.errors import UserError
from cion_jax.evaluate.embed import unit_features
from cion_jax.export.onnx.graph import Graph, Value
from cion_jax.export.onnx.operators import OPERATORS
from cion_jax.export.program import pixels_of, traced_for
from cion_jax.models.network import Network
from cion_jax.models.zoo import Variables

#: Primitives that call a program of their own, and the parameter that holds it.
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def onnx_model(network: Network, variables: Variables, card: dict[str, Any]) -> bytes:
    """The file: uint8 pixels (N, H, W, 3) to unit vectors, float32 (N, width); the card becomes its metadata."""
    pixels = pixels_of(network)
    traced = jax.jit(partial(unit_features, traced_for(network, "gpu"))).trace(network.shapes(), pixels)
    given, returned = card["input"], card["output"]
    graph = Graph(given["name"], pixels.shape[0])
    inputs: list[Value] = [*map(np.asarray, jax.tree.leaves(variables)), graph.pixels]
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # constants in float32, whatever else is here
        (features,) = convert(graph, traced.jaxpr, inputs)
    shapes = {each["name"]: each["shape"] for each in (given, returned)}
    notes = {name: value if isinstance(value, str) else dumps(value) for name, value in card.items()}
    return graph.model(features, returned["name"], shapes, notes)


def convert(graph: Graph, program: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    """Add a program's operators to the graph; what comes out of it, where the inputs go in."""
    jaxpr: Jaxpr = program.jaxpr
    known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, program.consts), strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Value:
        return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        results = _results(graph, equation, [read(variable) for variable in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _results(graph: Graph, equation: Any, values: list[Value]) -> Sequence[Value]:
    name = equation.primitive.name
    if name in _CALLS:
        return convert(graph, equation.params[_CALLS[name]], values)
    if all(isinstance(value, np.ndarray) for value in values) and not _is_dynamic(graph, equation):
        result = equation.primitive.bind(*values, **equation.params)
        return [*map(np.asarray, result)] if equation.primitive.multiple_results else [np.asarray(result)]
    if name not in OPERATORS:
        raise UserError(f"no operator of ONNX is known for JAX's {name!r}; export with --format stablehlo")
    result = OPERATORS[name](graph, equation, *values)
    return result if isinstance(result, list) else [result]


def _is_dynamic(graph: Graph, equation: Any) -> bool:
    return any(graph.is_dynamic(variable.aval.shape) for variable in equation.outvars)
