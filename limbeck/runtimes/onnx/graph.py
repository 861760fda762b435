"""A small builder of ONNX graphs: nodes by their inputs, constants by name, each stored once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 21
IR_VERSION = 10
"""The oldest that holds opset 21, for runtimes older than the writer's."""
MICROSOFT = "com.microsoft"
Shape = Sequence[int | str]


class Graph:
    """Nodes and constants in the order they were added."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Shape) -> str:
        """Declare an input; its name."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: Shape) -> None:
        """Declare that the value of this name comes out."""
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, name: str, array: np.ndarray) -> str:
        """Store an array under a name, once; its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operation with one output; the output's name."""
        return self.nodes(op, *inputs, outputs=[self._fresh(op)], domain=domain, **attributes)[0]

    def nodes(
        self, op: str, *inputs: str, outputs: Sequence[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add an operation whose outputs are named; '' leaves an optional output out."""
        node = helper.make_node(op, inputs, outputs, domain=domain, **attributes)
        self._nodes.append(node)
        return list(outputs)

    def build(self, *, name: str) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="limbeck"
        )

    def _fresh(self, op: str) -> str:
        return f"{op}_{len(self._nodes)}"
