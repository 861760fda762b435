"""Integer products are exact on every processor, also where pairs of products could overflow."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from limbeck.runtimes.checkpoint_reader import Weights
from limbeck.runtimes.onnx.graph import Graph
from limbeck.runtimes.onnx.kernels import multiply


def compute(x, weights):
    graph = Graph()
    name = graph.input("x", TensorProto.FLOAT, ["rows", x.shape[1]])
    outputs = multiply(graph, name, weights=weights, name="layer")
    graph.output(outputs, TensorProto.FLOAT, ["rows", len(weights.rows)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.build(name="test").SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("channels", [128, 256, 384])
@pytest.mark.parametrize("num_rows", [1, 3, 16])
@pytest.mark.parametrize("extreme", [True, False])
def test_integer_products_are_exact(channels, num_rows, extreme):
    rng = np.random.default_rng(0)
    rows = rng.integers(-127, 128, size=(40, channels)).astype(np.int8)
    x = rng.normal(size=(num_rows, channels)).astype(np.float32)
    if extreme:  # two such products exceed 16 bits
        rows, x = np.where(rows < 0, -127, 127).astype(np.int8), np.sign(x)
    scale = rng.uniform(0.01, 0.02, size=40).astype(np.float32)
    step = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    integers = np.rint(x / step)
    expected = (integers.astype(np.int64) @ rows.T.astype(np.int64)) * scale * step
    found = compute(x, Weights(rows=rows, scale=scale[:, None], bias=None, bits=8))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
