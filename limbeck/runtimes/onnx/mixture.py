"""A sparse layer as graph nodes: its router, its experts, and the one that every token passes.

The experts are one node (`MoE` of com.microsoft), which picks by the highest of the logits it is
given and weighs by their softmax. A router that picks or weighs otherwise (a bias, a sigmoid,
groups) is computed before it: the node then gets the logarithms of the weights of the picked
experts, and for the others a number whose softmax is 0.
"""

import numpy as np

from limbeck.contracts.errors import CheckpointError
from limbeck.runtimes.mixture import Mixture
from limbeck.runtimes.onnx.graph import MICROSOFT, Graph
from limbeck.runtimes.onnx.kernels import scale
from limbeck.runtimes.tensors import Tensors

OUT = -1e30
"""Logit of an expert that is not picked: beside any other its softmax is 0."""


class SparseLayers:
    """Adds the routers and experts of one decoder to its graph."""

    def __init__(
        self, graph: Graph, mixture: Mixture, tensors: Tensors, *, hidden_size: int
    ) -> None:
        self.graph = graph
        self.mixture = mixture
        self.tensors = tensors
        self.hidden_size = hidden_size

    def add(self, module: str, hidden: str) -> str:
        """What the picked experts make of [batch, tokens, hidden], weighted and summed."""
        graph, mixture = self.graph, self.mixture
        shape = graph.constant("rows_shape", np.array([-1, self.hidden_size], np.int64))
        rows = graph.node("Reshape", hidden, shape)
        gate = self.tensors.take(
            f"{module}.gate.weight", shape=[mixture.num_experts, self.hidden_size]
        )
        logits = graph.node("MatMul", rows, graph.constant(f"{module}.gate.weight", gate.T))
        router, total = self._route(module, logits)
        gate_up, down = self._take_experts(module)
        outputs = graph.node(
            "MoE",
            rows,
            router,
            graph.constant(f"{module}.experts.gate_up", gate_up),
            "",
            graph.constant(f"{module}.experts.down", down),
            domain=MICROSOFT,
            k=mixture.picks,
            activation_type="swiglu",
            activation_alpha=1.0,
            activation_beta=0.0,
            swiglu_fusion=1,
            normalize_routing_weights=int(mixture.normalizes),
        )
        if total:
            outputs = graph.node("Mul", outputs, total)
        outputs = scale(graph, outputs, mixture.scale)
        return graph.node("Reshape", outputs, graph.node("Shape", hidden))

    def _route(self, module: str, logits: str) -> tuple[str, str]:
        """The logits that make the node pick and weigh, and a factor of its outputs or ''."""
        graph, mixture = self.graph, self.mixture
        bias = None
        if self.tensors.has(f"{module}.gate.balance_bias"):
            bias = self.tensors.take(f"{module}.gate.balance_bias", shape=[mixture.num_experts])
        is_biased = bias is not None and bool(bias.any())
        if mixture.scoring == "softmax" and mixture.num_groups == 1 and not is_biased:
            return logits, ""
        if mixture.scoring == "softmax":
            scores = graph.node("Softmax", logits, axis=-1)
        else:
            scores = graph.node("Sigmoid", logits)
        chosen_by = scores
        if bias is not None:
            chosen_by = graph.node("Add", scores, graph.constant(f"{module}.gate.bias", bias))
        if mixture.num_groups > 1:
            chosen_by = self._limit_groups(chosen_by)
        picks = _numbers(graph, "picks", [mixture.picks])
        names = [f"{module}.best", f"{module}.picked"]
        _, picked = graph.nodes("TopK", chosen_by, picks, outputs=names, axis=-1)
        weights = graph.node("GatherElements", scores, picked, axis=-1)
        outside = graph.node(
            "Expand",
            graph.constant("not_picked", np.array(OUT, np.float32)),
            graph.node("Shape", logits),
        )
        router = graph.node("ScatterElements", outside, picked, graph.node("Log", weights), axis=-1)
        if mixture.normalizes:
            return router, ""
        last = _numbers(graph, "last_axis", [-1])
        return router, graph.node("ReduceSum", weights, last, keepdims=1)

    def _limit_groups(self, scores: str) -> str:
        """Scores with a low number outside each token's best groups: those whose two best experts
        together are highest."""
        graph, mixture = self.graph, self.mixture
        each = mixture.num_experts // mixture.num_groups
        grouped = graph.node(
            "Reshape", scores, _numbers(graph, "groups", [-1, mixture.num_groups, each])
        )
        two = _numbers(graph, "two", [min(2, each)])
        best, _ = graph.nodes("TopK", grouped, two, outputs=_pair(scores, "experts"), axis=-1)
        strength = graph.node("ReduceSum", best, _numbers(graph, "last_axis", [-1]), keepdims=0)
        kept = _numbers(graph, "kept_groups", [mixture.groups_per_token])
        _, groups = graph.nodes("TopK", strength, kept, outputs=_pair(scores, "groups"), axis=-1)
        outside = graph.constant("not_picked", np.array(OUT, np.float32))
        zeros = graph.node("Mul", strength, graph.constant("zero", np.array(0, np.float32)))
        low = graph.node("Add", zeros, outside)
        inside = graph.node("GatherElements", zeros, groups, axis=-1)
        mask = graph.node("ScatterElements", low, groups, inside, axis=-1)
        column = graph.node("Unsqueeze", mask, _numbers(graph, "last_axis", [-1]))
        limited = graph.node("Add", grouped, column)
        return graph.node("Reshape", limited, _numbers(graph, "experts", [-1, mixture.num_experts]))

    def _take_experts(self, module: str) -> tuple[np.ndarray, np.ndarray]:
        """Gate and up projections [experts, 2 x width, hidden], their rows in turns, and down."""
        mixture, hidden, names = self.mixture, self.hidden_size, self.mixture.names
        num, width = mixture.num_experts, mixture.width
        if self.tensors.has(f"{module}.experts.gate_up_proj"):
            fused = self._take(f"{module}.experts.gate_up_proj", [num, 2 * width, hidden])
            gate, up = fused[:, :width], fused[:, width:]
            down = self._take(f"{module}.experts.down_proj", [num, hidden, width])
        else:
            shapes = {
                names.gate: [width, hidden],
                names.up: [width, hidden],
                names.down: [hidden, width],
            }
            gate, up, down = (
                np.stack(
                    [self._take(f"{module}.experts.{n}.{name}.weight", shape) for n in range(num)]
                )
                for name, shape in shapes.items()
            )
        return np.stack([gate, up], axis=2).reshape(num, 2 * width, hidden), down

    def _take(self, name: str, shape: list[int]) -> np.ndarray:
        array = self.tensors.take(name, shape=shape)
        if array.dtype != np.float32:
            raise CheckpointError(
                f"tensor {name!r} holds {array.dtype}: experts are exported from floats only"
            )
        return array


def _numbers(graph: Graph, name: str, values: list[int]) -> str:
    return graph.constant(f"{name}_{'_'.join(map(str, values))}", np.array(values, np.int64))


def _pair(scores: str, name: str) -> list[str]:
    return [f"{scores}.best_{name}", f"{scores}.best_{name}_places"]
