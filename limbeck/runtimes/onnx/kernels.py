"""Embeddings and matrix products as graph nodes, in float32 or on integers.

Integers follow the checkpoint's format: a block's absmax / 127 is its step, rounding is to the
nearest, products of a block are summed in int32 and scaled afterwards. Two ways to the same
numbers, with figures in docs/decisions/0001-onnx-runtime.md and 0023-int8-blocks.md:

- blocks of 16 to 256, of which a whole row may be one: `MatMulNBits` does everything in one node
  (of two bits, blocks of up to 128, so that a longer one is several of one scale, which rounds
  activations in the shorter blocks);
- whole rows of other widths: steps and rounding as nodes around `MatMulIntegerToFloat`. Activations
  and weights are uint8 around 128: two signed operands are slow on x86, and an unsigned by a signed
  one adds pairs of products in 16 bits that overflow where a processor has no VNNI.
"""

import numpy as np
from jaxtyping import Int8, UInt8
from onnx import TensorProto

from limbeck.runtimes.onnx.graph import MICROSOFT, Graph
from limbeck.runtimes.tensors import Weights

BLOCKS = (16, 32, 64, 128, 256)
"""Numbers that `MatMulNBits` can give one step."""
LEVELS = 127
ZERO_POINT = 128
BYTE = 8
"""Bits; numbers of fewer share one."""
NIBBLE = 4
"""Bits of a number of which a byte holds two."""
LONGEST_BLOCKS = {2: 128}
"""By bits, the longest block that `MatMulNBits` multiplies as integers, where that is less than all
(onnxruntime 1.32): longer ones it unpacks to floats, anew for every token."""
INTEGER_ACTIVATIONS = 4
"""The accuracy level of `MatMulNBits` that rounds activations to int8."""


def scale(graph: Graph, x: str, factor: float) -> str:
    """x times a number; x itself for 1."""
    if factor == 1:
        return x
    return graph.node("Mul", x, graph.constant(f"times_{factor}", np.array(factor, np.float32)))


def embed(graph: Graph, ids: str, *, weights: Weights, name: str) -> str:
    """Look rows up in a table that lies as `multiply_by_table` of the same name wants it."""
    if weights.scale is None:
        return graph.node("Gather", graph.constant(f"{name}.weight", weights.rows), ids)
    if _fits_block(weights):
        table, scale = _store_blocks(graph, weights=weights, name=name)
        codes = graph.node("Gather", table, ids)
        if weights.bits == NIBBLE:
            codes = _unpack(graph, codes, block=_block(weights))
        shifted = graph.node("Cast", codes, to=TensorProto.FLOAT)
        zero = 1 << (weights.bits - 1)
        integers = graph.node("Sub", shifted, _number(graph, f"shift_{zero}", zero))
        steps = graph.node("Unsqueeze", graph.node("Gather", scale, ids), _axes(graph, -1))
        rows = graph.constant("joined_blocks", np.array([0, 0, -1], np.int64))
        joined = graph.node("Reshape", graph.node("Mul", integers, steps), rows)
        if weights.channels % _block(weights) == 0:
            return joined
        start, stop = (_axes(graph, end) for end in (0, weights.channels))
        return graph.node("Slice", joined, start, stop, _axes(graph, -1))
    table = graph.constant(f"{name}.weight", _shift(weights.rows).T)
    scale = graph.constant(f"{name}.scale", weights.scale[:, 0])
    picked = graph.node("Transpose", graph.node("Gather", table, ids, axis=1), perm=[1, 2, 0])
    shifted = graph.node("Cast", picked, to=TensorProto.FLOAT)
    rows = graph.node("Sub", shifted, _number(graph, f"shift_{ZERO_POINT}", ZERO_POINT))
    steps = graph.node("Unsqueeze", graph.node("Gather", scale, ids), _axes(graph, -1))
    return graph.node("Mul", rows, steps)


def multiply(graph: Graph, x: str, *, weights: Weights, name: str) -> str:
    """x @ rows.T + bias."""
    if weights.scale is None:
        outputs = graph.node("MatMul", x, graph.constant(f"{name}.weight", weights.rows.T))
    elif _fits_block(weights):
        outputs = _multiply_blocks(graph, x, weights=weights, name=name)
    else:
        outputs = _multiply_integers(graph, x, weights=weights, name=name)
    if weights.bias is None:
        return outputs
    return graph.node("Add", outputs, graph.constant(f"{name}.bias", weights.bias))


def multiply_by_table(graph: Graph, x: str, *, weights: Weights, name: str) -> str:
    """The tied head: rows of x [kept hidden] times the table that `embed` of this name stored."""
    if weights.scale is None:
        return graph.node("Gemm", x, graph.constant(f"{name}.weight", weights.rows), transB=1)
    return multiply(graph, x, weights=weights, name=name)


def _block(weights: Weights) -> int:
    """Numbers of a node's block; the smallest width for a row that is one short block."""
    if weights.block is None or weights.bits < BYTE:
        return min(weights.block or weights.channels, LONGEST_BLOCKS.get(weights.bits, 1 << 30))
    return min([weights.block, *(block for block in BLOCKS if block >= weights.channels)])


def _fits_block(weights: Weights) -> bool:
    return _block(weights) in BLOCKS


def _store_blocks(graph: Graph, *, weights: Weights, name: str) -> tuple[str, str]:
    assert weights.scale is not None
    out, block = len(weights.rows), _block(weights)
    if weights.bits < BYTE:  # stored around its zero and filled up, as the node has it
        codes = weights.rows.reshape(out, -1, block * weights.bits // BYTE)
    else:
        filled = ((0, 0), (0, -weights.channels % block))
        padded = np.pad(_shift(weights.rows), filled, constant_values=ZERO_POINT)
        codes = padded.reshape(out, -1, block)
    num_blocks = -(-weights.channels // block)
    steps = weights.scale
    if weights.block is not None and block < weights.block:
        steps = np.repeat(steps, weights.block // block, axis=1)
    table = graph.constant(f"{name}.weight", np.ascontiguousarray(codes[:, :num_blocks]))
    return table, graph.constant(f"{name}.scale", np.ascontiguousarray(steps[:, :num_blocks]))


def _multiply_blocks(graph: Graph, x: str, *, weights: Weights, name: str) -> str:
    table, scale = _store_blocks(graph, weights=weights, name=name)
    return graph.node(
        "MatMulNBits",
        x,
        table,
        scale,
        domain=MICROSOFT,
        K=weights.channels,
        N=len(weights.rows),
        bits=weights.bits,
        block_size=_block(weights),
        accuracy_level=INTEGER_ACTIVATIONS,
    )


def _unpack(graph: Graph, packed: str, *, block: int) -> str:
    """Bytes of two numbers as numbers: the low half comes first."""
    low = graph.node("BitwiseAnd", packed, graph.constant("low_half", np.array(15, np.uint8)))
    bits = graph.constant("half_byte", np.array(NIBBLE, np.uint8))
    high = graph.node("BitShift", packed, bits, direction="RIGHT")
    halves = [graph.node("Unsqueeze", item, _axes(graph, -1)) for item in (low, high)]
    both = graph.node("Concat", *halves, axis=-1)
    shape = graph.constant(f"blocks_of_{block}", np.array([0, 0, 0, block], np.int64))
    return graph.node("Reshape", both, shape)


def _multiply_integers(graph: Graph, x: str, *, weights: Weights, name: str) -> str:
    assert weights.scale is not None
    matrix = graph.constant(f"{name}.weight", _shift(weights.rows).T)
    scale = graph.constant(f"{name}.scale", weights.scale[:, 0])
    zero = graph.constant("zero_point", np.array(ZERO_POINT, np.uint8))
    absmax = graph.node("ReduceMax", graph.node("Abs", x), _axes(graph, -1), keepdims=1)
    # A row of zeros has step 0: whatever its quotients become, the product with the step is 0.
    step = graph.node("Div", absmax, _number(graph, "levels", LEVELS))
    one = _number(graph, "one", 1)
    integers = graph.node("QuantizeLinear", graph.node("Div", x, step), one, zero)
    # This node takes one step for all rows, so it is given none and the rows are scaled after it.
    product = graph.node(
        "MatMulIntegerToFloat", integers, matrix, one, scale, zero, zero, domain=MICROSOFT
    )
    return graph.node("Mul", product, step)


def _shift(rows: Int8[np.ndarray, "out channels"]) -> UInt8[np.ndarray, "out channels"]:
    """The integers around 128 instead of 0."""
    return (rows.astype(np.int16) + ZERO_POINT).astype(np.uint8)


def _number(graph: Graph, name: str, value: int) -> str:
    return graph.constant(name, np.array(value, np.float32))


def _axes(graph: Graph, axis: int) -> str:
    return graph.constant(f"axis_{axis}", np.array([axis], np.int64))
