"""A graph of ONNX operators while it is built, and the values that flow in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: Old enough for the runtimes that are in use.
OPSET = 17
IR_VERSION = 8


@dataclass(frozen=True)
class Tensor:
    """A value that depends on the images: what a node computes."""

    name: str


#: What does not depend on the images is known, and stands in the graph as a constant.
Value = np.ndarray | Tensor


class Graph:
    """Nodes in the order in which they run, and the constants that they take."""

    def __init__(self, pixels: str, batch: Any) -> None:
        """`pixels` names the input, whose first axis is the dimension `batch` of the traced program."""
        self.pixels = Tensor(pixels)
        self.batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: Value, **attributes: Any) -> Tensor:
        """One more node with a single output."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: Value, **attributes: Any) -> list[Tensor]:
        """One more node with several outputs."""
        start = f"{operator}_{len(self._nodes)}"
        names = [start if outputs == 1 else f"{start}_{number}" for number in range(outputs)]
        taken = [self._name(value) for value in inputs]
        self._nodes.append(helper.make_node(operator, taken, names, name=start, **attributes))
        return [Tensor(name) for name in names]

    def expand(self, x: Value, shape: Sequence[Any]) -> Tensor:
        """x repeated along axes of length 1, up to a shape that may begin with the batch."""
        if not self.is_dynamic(shape):
            return self.add("Expand", x, integers(shape))
        assert all(length == self.batch or isinstance(length, int) for length in shape)
        batch = self.add("Slice", self.add("Shape", self.pixels), integers([0]), integers([1]))
        parts = [batch if length == self.batch else integers([length]) for length in shape]
        return self.add("Expand", x, self.add("Concat", *parts, axis=0))

    def reshape(self, x: Value, shape: Sequence[Any]) -> Tensor:
        """x in another shape, of which one length may depend on the batch."""
        assert sum(not isinstance(length, int) for length in shape) <= 1
        return self.add("Reshape", x, integers([length if isinstance(length, int) else -1 for length in shape]))

    @staticmethod
    def is_dynamic(shape: Sequence[Any]) -> bool:
        """Whether a length depends on the batch."""
        return not all(isinstance(length, int) for length in shape)

    def model(self, features: Value, output: str, shapes: dict[str, Sequence[Any]], notes: dict[str, str]) -> bytes:
        """The file: what the output needs, and no more.

        Args:
            features: What comes out.
            output: The name to give it.
            shapes: Of input and output; a string is the name of a length that may be any.
            notes: Metadata.
        """
        self._nodes.append(helper.make_node("Identity", [self._name(features)], [output], name=output))
        nodes = needed(self._nodes, output)
        used = {name for node in nodes for name in node.input}
        values = [
            helper.make_tensor_value_info(self.pixels.name, onnx.TensorProto.UINT8, shapes[self.pixels.name]),
            helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, shapes[output]),
        ]
        constants = [constant for constant in self._constants.values() if constant.name in used]
        graph = helper.make_graph(nodes, "features", values[:1], values[1:], constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="cion-jax")
        helper.set_model_props(model, notes)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _name(self, value: Value) -> str:
        if isinstance(value, Tensor):
            return value.name
        value = np.ascontiguousarray(value).reshape(value.shape)
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(value, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)


def needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes on which an output depends, in their order."""
    wanted = {output}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def scalar(value: float) -> np.ndarray:
    """A number, as what is computed has it."""
    return np.array(value, np.float32)


def integers(values: Sequence[Any]) -> np.ndarray:
    """Lengths, axes or places, as ONNX takes them."""
    return np.array([int(value) for value in values], np.int64)
