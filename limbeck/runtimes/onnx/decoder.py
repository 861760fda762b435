"""The decoder as a graph: one step over any number of rows and tokens, with its KV cache.

Rows of a batch are padded on the right; `last_positions` says where each row ends, so that a row's
cache goes on where the row does. Attention with its rotary positions and cache is one node a layer
(`GroupQueryAttention`).
"""

import numpy as np
import onnx
from onnx import TensorProto

from limbeck.runtimes.checkpoint_reader import Architecture, Tensors, stack
from limbeck.runtimes.onnx.graph import MICROSOFT, Graph
from limbeck.runtimes.onnx.kernels import embed, multiply, multiply_by_table

TABLE = "embed_tokens"


def build_decoder(architecture: Architecture, *, tensors: Tensors) -> onnx.ModelProto:
    """The graph with the checkpoint's weights in it."""
    graph = Graph()
    ids = graph.input("input_ids", TensorProto.INT64, ["batch", "tokens"])
    graph.input("last_positions", TensorProto.INT32, ["batch"])
    graph.input("total_tokens", TensorProto.INT32, [])
    kept = graph.input("kept", TensorProto.INT64, ["kept"])
    _add_rotary(graph, architecture)
    table = tensors.take_weights(
        "model.embed_tokens", out=architecture.vocab_size, channels=architecture.hidden_size
    )
    layers = _Layers(graph, architecture, tensors)
    residual = embed(graph, ids, weights=table, name=TABLE)
    delta = ""
    for layer in range(architecture.num_layers):
        residual, delta = layers.add(layer, residual=residual, delta=delta)
    hidden, _ = layers.normalize("model.norm", residual=residual, delta=delta)
    shape = graph.constant("rows_shape", np.array([-1, architecture.hidden_size], np.int64))
    rows = graph.node("Gather", graph.node("Reshape", hidden, shape), kept)
    if architecture.is_tied:
        logits = multiply_by_table(graph, rows, weights=table, name=TABLE)
    else:
        head = tensors.take_weights(
            "lm_head", out=architecture.vocab_size, channels=architecture.hidden_size
        )
        logits = multiply(graph, rows, weights=head, name="lm_head")
    graph.nodes("Identity", logits, outputs=["logits"])
    graph.output("logits", TensorProto.FLOAT, ["kept", architecture.vocab_size])
    layers.declare_cache()
    return graph.build(name="decoder")


def _add_rotary(graph: Graph, architecture: Architecture) -> None:
    """Tables of cosines and sines; the runtime folds them once, so the file holds none."""
    start, stop, step, scale = (
        graph.constant(f"rotary_{name}", np.array(value, np.float32))
        for name, value in (
            ("start", 0),
            ("stop", architecture.max_tokens),
            ("step", 1),
            ("scale", architecture.rotary_scale),
        )
    )
    column = graph.constant("rotary_column", np.array([-1, 1], np.int64))
    positions = graph.node("Reshape", graph.node("Range", start, stop, step), column)
    frequencies = graph.constant("frequencies", architecture.frequencies[None])
    angles = graph.node("Mul", positions, frequencies)
    for op, name in (("Cos", "cosines"), ("Sin", "sines")):
        graph.nodes("Mul", graph.node(op, angles), scale, outputs=[name])


class _Layers:
    """Adds the layers of one decoder to its graph."""

    def __init__(self, graph: Graph, architecture: Architecture, tensors: Tensors) -> None:
        self.graph = graph
        self.shape = architecture
        self.tensors = tensors

    def add(self, layer: int, *, residual: str, delta: str) -> tuple[str, str]:
        """The residual stream after attention, and the feed-forward output still to be added."""
        name = f"model.layers.{layer}"
        hidden, residual = self.normalize(f"{name}.input_layernorm", residual=residual, delta=delta)
        attended = self._attend(layer, hidden)
        hidden, residual = self.normalize(
            f"{name}.post_attention_layernorm", residual=residual, delta=attended
        )
        return residual, self._feed_forward(f"{name}.mlp", hidden)

    def normalize(self, module: str, *, residual: str, delta: str) -> tuple[str, str]:
        """The normed sum of both, and the sum; an empty delta adds nothing."""
        gain = self.graph.constant(module, self._take_gain(module, self.shape.hidden_size))
        epsilon = self.shape.rms_norm_eps
        if not delta:
            normed = self.graph.node(
                "SimplifiedLayerNormalization", residual, gain, axis=-1, epsilon=epsilon
            )
            return normed, residual
        outputs = [f"{module}.normed", "", "", f"{module}.sum"]
        self.graph.nodes(
            "SkipSimplifiedLayerNormalization",
            residual,
            delta,
            gain,
            outputs=outputs,
            domain=MICROSOFT,
            epsilon=epsilon,
        )
        return outputs[0], outputs[3]

    def declare_cache(self) -> None:
        """Declare the keys and values that come out."""
        for layer in range(self.shape.num_layers):
            for part in ("key", "value"):
                self.graph.output(
                    f"present.{layer}.{part}", TensorProto.FLOAT, self._cache_shape("total")
                )

    def _cache_shape(self, length: str) -> list[int | str]:
        return ["batch", self.shape.num_key_value_heads, length, self.shape.head_dim]

    def _attend(self, layer: int, hidden: str) -> str:
        graph, shape = self.graph, self.shape
        module = f"model.layers.{layer}.self_attn"
        width = shape.head_dim
        heads = {"q": shape.num_heads, "k": shape.num_key_value_heads}
        heads["v"] = heads["k"]
        projections = [
            self.tensors.take_weights(
                f"{module}.{part}_proj", out=num * width, channels=shape.hidden_size
            )
            for part, num in heads.items()
        ]
        packed = multiply(graph, hidden, weights=stack(projections), name=f"{module}.qkv")
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
        attended, *_ = graph.nodes(
            "GroupQueryAttention",
            query,
            key,
            value,
            *past,
            "last_positions",
            "total_tokens",
            "cosines",
            "sines",
            outputs=[f"{module}.attended", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MICROSOFT,
            num_heads=heads["q"],
            kv_num_heads=heads["k"],
            scale=width**-0.5,
            do_rotary=1,
        )
        out = self.tensors.take_weights(
            f"{module}.o_proj", out=shape.hidden_size, channels=shape.num_heads * width
        )
        return multiply(graph, attended, weights=out, name=f"{module}.o")

    def _normalize_heads(self, module: str, x: str, heads: int) -> str:
        if not self.tensors.has(f"{module}.weight"):
            return x
        graph, width = self.graph, self.shape.head_dim
        gain = graph.constant(module, self._take_gain(module, width))
        split = graph.constant(f"split_{heads}", np.array([0, 0, heads, width], np.int64))
        joined = graph.constant(f"join_{heads}", np.array([0, 0, heads * width], np.int64))
        normed = graph.node(
            "SimplifiedLayerNormalization",
            graph.node("Reshape", x, split),
            gain,
            axis=-1,
            epsilon=self.shape.rms_norm_eps,
        )
        return graph.node("Reshape", normed, joined)

    def _feed_forward(self, module: str, hidden: str) -> str:
        graph, shape = self.graph, self.shape
        halves = [
            self.tensors.take_weights(
                f"{module}.{part}_proj", out=shape.intermediate_size, channels=shape.hidden_size
            )
            for part in ("gate", "up")
        ]
        both = multiply(graph, hidden, weights=stack(halves), name=f"{module}.gate_up")
        gate, up = graph.nodes(
            "Split", both, outputs=[f"{module}.gate", f"{module}.up"], axis=-1, num_outputs=2
        )
        # With a factor of 1, QuickGelu is SiLU in one node.
        activated = graph.node("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)
        down = self.tensors.take_weights(
            f"{module}.down_proj", out=shape.hidden_size, channels=shape.intermediate_size
        )
        product = graph.node("Mul", activated, up)
        return multiply(graph, product, weights=down, name=f"{module}.down")

    def _take_gain(self, module: str, width: int) -> np.ndarray:
        return self.tensors.take(f"{module}.weight", shape=[width])
