"""Integer products are exact on every processor, also where pairs of products could overflow."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from limbeck.quantization.formats import block_rounding
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.runtimes.onnx.graph import Graph
from limbeck.runtimes.onnx.kernels import embed, multiply
from limbeck.runtimes.tensors import Weights


def compute(x, weights):
    graph = Graph()
    name = graph.input("x", TensorProto.FLOAT, ["rows", x.shape[1]])
    outputs = multiply(graph, name, weights=weights, name="layer")
    graph.output(outputs, TensorProto.FLOAT, ["rows", len(weights.rows)])
    return answer(graph, {"x": x})


def answer(graph, feeds):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.build(name="test").SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


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


def quantized(channels, *, block_size, bias=None):
    """Weights of a layer as a checkpoint holds them, the last but one row zeros; their format."""
    torch.manual_seed(0)
    weight = torch.randn(40, channels)
    weight[:, 0] *= 100
    weight[-2] = 0
    int8 = Int8(kind="int8", block_size=block_size)
    stored = int8.quantize(weight)
    rows, scale = stored.codes.numpy(), stored.scale.numpy()
    return int8, stored, Weights(rows, scale, bias, bits=8, block=int8.block)


@pytest.mark.parametrize("channels", [8, 16, 31, 32, 50, 96, 200, 576])
@pytest.mark.parametrize("block_size", [16, 32, 256, "row"])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_blocks_are_the_checkpoints_to_float32_rounding(channels, block_size, num_rows):
    bias = np.linspace(-1, 1, 40, dtype=np.float32)
    int8, stored, weights = quantized(channels, block_size=block_size, bias=bias)
    x = torch.randn(num_rows, channels)
    x[:, -1] *= 3000
    x[-1] = 0
    expected = (int8.multiply(x, weight=stored) + torch.from_numpy(bias)).numpy()
    found = compute(x.numpy(), weights)
    # For several rows onnxruntime takes the weights around 128 and subtracts what that added.
    rounding = 3e-6 if num_rows == 1 else 3e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding * np.abs(expected).max())


@pytest.mark.parametrize("channels", [32, 50, 128, 200, 576])
@pytest.mark.parametrize(
    "number_format",
    [
        Int2(kind="int2"),
        Int2(kind="int2", block_size=32),
        Int2(kind="int2", block_size=128),
        Ternary(kind="ternary"),
        Ternary(kind="ternary", block_size=128),
    ],
    ids=str,
)
def test_two_bits_are_multiplied_as_integers(number_format, channels):
    """Activations are rounded in the node's blocks, which are half of a ternary one of 256."""
    torch.manual_seed(0)
    stored = number_format.quantize(torch.randn(40, channels))
    weights = Weights(
        stored.codes.numpy(),
        stored.scale.float().numpy(),
        None,
        bits=2,
        block=number_format.block,
        num_channels=channels,
    )
    x = torch.randn(3, channels)
    rounded = block_rounding.fake(x, block=min(number_format.block, 128))
    expected = (rounded @ number_format.dequantize(stored).T).numpy()
    found = compute(x.numpy(), weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_no_activation_falls_to_another_step_than_the_checkpoints():
    """On the borders of steps too, where a quotient and a product with 127 / absmax differ."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 32)).astype(np.float32)
    step = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    x[:, ::2] = (rng.integers(-126, 126, size=(5000, 16)) + np.float32(0.5)) * step
    int8 = Int8(kind="int8")
    stored = int8.quantize(torch.eye(32))
    weights = Weights(stored.codes.numpy(), stored.scale.numpy(), None, bits=8, block=32)
    found = compute(x, weights) / np.abs(x).max(axis=1, keepdims=True) * 127
    codes = int8.quantize(torch.from_numpy(x)).codes.numpy()
    assert np.array_equal(np.rint(found), codes)


@pytest.mark.parametrize("channels", [16, 31, 50, 96, 128])
@pytest.mark.parametrize("block_size", [16, 32, "row"])
def test_a_table_that_a_head_shares_is_looked_up_exactly(channels, block_size):
    int8, stored, weights = quantized(channels, block_size=block_size)
    graph = Graph()
    ids = graph.input("ids", TensorProto.INT64, ["batch", "tokens"])
    rows = embed(graph, ids, weights=weights, name="table")
    multiply(graph, rows, weights=weights, name="table")
    graph.output(rows, TensorProto.FLOAT, ["batch", "tokens", channels])
    large = [item for item in graph.build(name="test").graph.initializer if item.dims[0:1] == [40]]
    assert sum(item.name == "table.weight" for item in large) <= 1
    places = np.array([[0, 3, 39], [38, 1, 1]])
    expected = int8.dequantize(stored).numpy()[places]
    assert np.array_equal(answer(graph, {"ids": places}), expected)


@pytest.mark.parametrize(
    ("channels", "block_size", "stored"),
    [(8, 32, 16), (50, 256, 64), (128, 256, 128), (50, 16, 64)],
)
def test_a_row_shorter_than_its_block_is_filled_up_no_further_than_it_must(
    channels, block_size, stored
):
    _, _, weights = quantized(channels, block_size=block_size)
    graph = Graph()
    x = graph.input("x", TensorProto.FLOAT, ["rows", channels])
    multiply(graph, x, weights=weights, name="layer")
    (table,) = [
        item for item in graph.build(name="t").graph.initializer if item.name == "layer.weight"
    ]
    assert np.prod(table.dims) == 40 * stored
