"""The decoder as a graph: one step over any number of rows and tokens, with its KV cache.

Rows of a batch are padded on the right; `last_positions` says where each row ends, so that a row's
cache goes on where the row does. Attention with its rotary positions and cache is one node a layer
(`GroupQueryAttention`).
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from limbeck.runtimes.architecture import Architecture
from limbeck.runtimes.onnx.graph import MICROSOFT, Graph
from limbeck.runtimes.onnx.kernels import embed, multiply, multiply_by_table, scale
from limbeck.runtimes.onnx.mixture import SparseLayers
from limbeck.runtimes.tensors import Tensors, stack

TABLE = "embed_tokens"


def build_decoder(architecture: Architecture, *, tensors: Tensors) -> onnx.ModelProto:
    """The graph with the checkpoint's weights in it."""
    graph = Graph()
    ids = graph.input("input_ids", TensorProto.INT64, ["batch", "tokens"])
    graph.input("last_positions", TensorProto.INT32, ["batch"])
    graph.input("total_tokens", TensorProto.INT32, [])
    kept = graph.input("kept", TensorProto.INT64, ["kept"])
    for index in range(len(architecture.rotaries)):
        _add_rotary(graph, architecture, index)
    table = tensors.take_weights(
        "model.embed_tokens", out=architecture.vocab_size, channels=architecture.hidden_size
    )
    layers = _Layers(graph, architecture, tensors)
    residual = embed(graph, ids, weights=table, name=TABLE)
    residual = scale(graph, residual, architecture.embedding_scale)
    delta = ""
    for layer in range(len(architecture.layers)):
        residual, delta = layers.add(layer, residual=residual, delta=delta)
    hidden, _ = layers.add_and_normalize("model.norm", residual=residual, delta=delta)
    shape = graph.constant("rows_shape", np.array([-1, architecture.hidden_size], np.int64))
    rows = graph.node("Gather", graph.node("Reshape", hidden, shape), kept)
    if architecture.is_tied:
        logits = multiply_by_table(graph, rows, weights=table, name=TABLE)
    else:
        head = tensors.take_weights(
            "lm_head", out=architecture.vocab_size, channels=architecture.hidden_size
        )
        logits = multiply(graph, rows, weights=head, name="lm_head")
    logits = scale(graph, logits, architecture.logit_scale)
    if cap := architecture.logit_softcap:
        logits = scale(graph, graph.node("Tanh", scale(graph, logits, 1 / cap)), cap)
    graph.nodes("Identity", logits, outputs=["logits"])
    graph.output("logits", TensorProto.FLOAT, ["kept", architecture.vocab_size])
    layers.declare_cache()
    return graph.build(name="decoder")


def _add_rotary(graph: Graph, architecture: Architecture, index: int) -> None:
    """Tables of cosines and sines; the runtime folds them once, so the file holds none."""
    rotary = architecture.rotaries[index]
    start, stop, step, factor = (
        graph.constant(f"rotary_{index}_{name}", np.array(value, np.float32))
        for name, value in (
            ("start", 0),
            ("stop", architecture.max_tokens),
            ("step", 1),
            ("scale", rotary.scale),
        )
    )
    column = graph.constant("rotary_column", np.array([-1, 1], np.int64))
    positions = graph.node("Reshape", graph.node("Range", start, stop, step), column)
    frequencies = graph.constant(f"frequencies_{index}", rotary.frequencies[None])
    angles = graph.node("Mul", positions, frequencies)
    for op, name in (("Cos", "cosines"), ("Sin", "sines")):
        graph.nodes("Mul", graph.node(op, angles), factor, outputs=[f"{name}_{index}"])


class _Layers:
    """Adds the layers of one decoder to its graph."""

    def __init__(self, graph: Graph, architecture: Architecture, tensors: Tensors) -> None:
        self.graph = graph
        self.shape = architecture
        self.tensors = tensors
        mixture = architecture.mixture
        self.sparse = None
        if mixture is not None:
            self.sparse = SparseLayers(graph, mixture, tensors, hidden_size=self.shape.hidden_size)

    def add(self, layer: int, *, residual: str, delta: str) -> tuple[str, str]:
        """The residual stream after attention, and the feed-forward output still to be added."""
        name, conventions = f"model.layers.{layer}", self.shape.conventions
        hidden, residual = self.add_and_normalize(
            _join(name, conventions.attention_norm), residual=residual, delta=delta
        )
        attended = self._finish_block(
            self._attend(layer, hidden), norm=_join(name, conventions.attention_output_norm)
        )
        hidden, residual = self.add_and_normalize(
            _join(name, conventions.feed_forward_norm), residual=residual, delta=attended
        )
        if self.sparse is not None and layer in self.sparse.mixture.layers:
            fed = self._feed_experts(name, hidden, self.sparse)
        else:
            fed = self._feed_forward(f"{name}.mlp", hidden, width=self.shape.intermediate_size)
        fed = self._finish_block(fed, norm=_join(name, conventions.feed_forward_output_norm))
        return residual, fed

    def add_and_normalize(self, module: str, *, residual: str, delta: str) -> tuple[str, str]:
        """The normed sum of both, and the sum; an empty delta adds nothing, no module norms."""
        if not module:
            total = self.graph.node("Add", residual, delta) if delta else residual
            return total, total
        if not delta:
            return self._normalize(module, residual, width=self.shape.hidden_size), residual
        outputs = [f"{module}.normed", "", "", f"{module}.sum"]
        self.graph.nodes(
            "SkipSimplifiedLayerNormalization",
            residual,
            delta,
            self._gain(module, width=self.shape.hidden_size),
            outputs=outputs,
            domain=MICROSOFT,
            epsilon=self.shape.rms_norm_eps,
        )
        return outputs[0], outputs[3]

    def declare_cache(self) -> None:
        """Declare the keys and values that come out."""
        for layer in range(len(self.shape.layers)):
            for part in ("key", "value"):
                self.graph.output(
                    f"present.{layer}.{part}", TensorProto.FLOAT, self._cache_shape("total")
                )

    def _finish_block(self, delta: str, *, norm: str) -> str:
        if norm:
            delta = self._normalize(norm, delta, width=self.shape.hidden_size)
        return scale(self.graph, delta, self.shape.residual_scale)

    def _normalize(self, module: str, x: str, *, width: int) -> str:
        return self.graph.node(
            "SimplifiedLayerNormalization",
            x,
            self._gain(module, width=width),
            axis=-1,
            epsilon=self.shape.rms_norm_eps,
        )

    def _gain(self, module: str, *, width: int) -> str:
        weight = self.tensors.take(f"{module}.weight", shape=[width])
        return self.graph.constant(module, weight + np.float32(self.shape.conventions.norm_offset))

    def _cache_shape(self, length: str) -> list[int | str]:
        return ["batch", self.shape.num_key_value_heads, length, self.shape.head_dim]

    def _attend(self, layer: int, hidden: str) -> str:
        graph, shape = self.graph, self.shape
        module = f"model.layers.{layer}.self_attn"
        width = shape.head_dim
        heads = {"q": shape.num_heads, "k": shape.num_key_value_heads}
        heads["v"] = heads["k"]
        packed = self._multiply_stacked(
            module,
            hidden,
            fused="qkv_proj",
            out={f"{part}_proj": n * width for part, n in heads.items()},
        )
        past = [
            graph.input(f"past.{layer}.{part}", TensorProto.FLOAT, self._cache_shape("past"))
            for part in ("key", "value")
        ]
        query, key, value = graph.nodes(
            "Split",
            packed,
            graph.constant("heads", np.array([*heads.values()], np.int64) * width),
            outputs=[f"{module}.{part}" for part in heads],
            axis=-1,
        )
        query = self._normalize_heads(f"{module}.q_norm", query, heads["q"])
        key = self._normalize_heads(f"{module}.k_norm", key, heads["k"])
        rotary, window = shape.layers[layer].rotary, shape.layers[layer].window
        tables = [] if rotary is None else [f"cosines_{rotary}", f"sines_{rotary}"]
        attended, *_ = graph.nodes(
            "GroupQueryAttention",
            query,
            key,
            value,
            *past,
            "last_positions",
            "total_tokens",
            *tables,
            outputs=[f"{module}.attended", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MICROSOFT,
            num_heads=heads["q"],
            kv_num_heads=heads["k"],
            scale=shape.attention_scale,
            softcap=shape.attention_softcap,
            local_window_size=-1 if window is None else window,
            do_rotary=int(rotary is not None),
            rotary_interleaved=int(shape.conventions.is_rotary_interleaved),
        )
        out = self.tensors.take_weights(
            f"{module}.o_proj", out=shape.hidden_size, channels=shape.num_heads * width
        )
        return multiply(graph, attended, weights=out, name=f"{module}.o")

    def _normalize_heads(self, module: str, x: str, heads: int) -> str:
        if not self.tensors.has(f"{module}.weight"):
            return x
        graph, width = self.graph, self.shape.head_dim
        if self.shape.conventions.norms_whole_projections:
            return self._normalize(module, x, width=heads * width)
        split = graph.constant(f"split_{heads}", np.array([0, 0, heads, width], np.int64))
        joined = graph.constant(f"join_{heads}", np.array([0, 0, heads * width], np.int64))
        normed = self._normalize(module, graph.node("Reshape", x, split), width=width)
        return graph.node("Reshape", normed, joined)

    def _feed_experts(self, layer: str, hidden: str, sparse: SparseLayers) -> str:
        graph, mixture, width = self.graph, sparse.mixture, self.shape.hidden_size
        module = f"{layer}.{mixture.names.block}"
        outputs = sparse.add(module, hidden)
        if not mixture.shared_width:
            return outputs
        shared = self._feed_forward(f"{module}.shared_expert", hidden, width=mixture.shared_width)
        if self.tensors.has(f"{module}.shared_expert_gate.weight"):
            gate = self.tensors.take_weights(f"{module}.shared_expert_gate", out=1, channels=width)
            share = multiply(graph, hidden, weights=gate, name=f"{module}.shared_expert_gate")
            shared = graph.node("Mul", graph.node("Sigmoid", share), shared)
        return graph.node("Add", outputs, shared)

    def _feed_forward(self, module: str, hidden: str, *, width: int) -> str:
        graph, shape = self.graph, self.shape
        halves = {"gate_proj": width, "up_proj": width}
        both = self._multiply_stacked(module, hidden, fused="gate_up_proj", out=halves)
        gate, up = graph.nodes(
            "Split", both, outputs=[f"{module}.gate", f"{module}.up"], axis=-1, num_outputs=2
        )
        if shape.activation == "silu":
            # With a factor of 1, QuickGelu is SiLU in one node.
            activated = graph.node("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)
        else:
            activated = graph.node("Gelu", gate, approximate="tanh")
        down = self.tensors.take_weights(
            f"{module}.down_proj", out=shape.hidden_size, channels=width
        )
        product = graph.node("Mul", activated, up)
        return multiply(graph, product, weights=down, name=f"{module}.down")

    def _multiply_stacked(self, module: str, x: str, *, fused: str, out: Mapping[str, int]) -> str:
        """Projections of one input as one product, however the checkpoint stores them.

        Those of different formats are several products.
        """
        channels, graph = self.shape.hidden_size, self.graph
        name = f"{module}.{fused.removesuffix('_proj')}"
        if self.tensors.has(f"{module}.{fused}.weight"):
            whole = self.tensors.take_weights(
                f"{module}.{fused}", out=sum(out.values()), channels=channels
            )
            return multiply(graph, x, weights=whole, name=name)
        parts = stack(
            [
                self.tensors.take_weights(f"{module}.{part}", out=num, channels=channels)
                for part, num in out.items()
            ]
        )
        products = [
            multiply(graph, x, weights=part, name=f"{name}.{index}" if index else name)
            for index, part in enumerate(parts)
        ]
        return products[0] if len(products) == 1 else graph.node("Concat", *products, axis=-1)


def _join(name: str, norm: str) -> str:
    return norm and f"{name}.{norm}"
