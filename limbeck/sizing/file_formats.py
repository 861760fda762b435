"""What a file of each runtime takes: blocks of weights, tables, norms, names, the vocabulary.

Computed by the rules of the writers, which a test holds against what they write. Left out: whether
Limbeck makes a format's weights, which the runtimes' own tables say.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from limbeck.contracts.config import NameIn
from limbeck.quantization.formats.base import Format, list_formats
from limbeck.sizing.shape_counts import ParameterShape, ShapeCounts

FLOAT_BYTES = 4
GGUF_BLOCKS: Mapping[str, tuple[int, int]] = {
    "F16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_1": (32, 20),
    "Q4_0": (32, 18),
    "TQ2_0": (256, 66),
    "TQ1_0": (256, 54),
}
"""Weights and bytes of a block of each of llama.cpp's types, scale included."""
GGUF_TABLES = {"Q4_1": "Q8_0", "Q4_0": "Q8_0", "TQ2_0": "Q4_0", "TQ1_0": "Q4_0"}
"""The type of embeddings and head where it is another; those of a ternary body in 4 bits, as such
a body is chosen where every byte counts."""
TENSOR_BYTES = {"transformers": 103, "onnx": 0, "gguf": 60}
"""Name, shape and place of one tensor. Measured on files of ours, as the next two."""
GRAPH_BYTES = {"floats": 2800, "integers": 3550}
"""Nodes and names of one layer of an ONNX graph."""
GRAPH_SCALE_BITS = 32
"""Of one scale in an ONNX graph."""
GRAPH_BLOCKS = {"ternary": 128}
"""Weights of a block there, where those are fewer than in the checkpoint."""
HEADER_BYTES = {"transformers": 900, "onnx": 1500, "gguf": 1000}
"""What every file holds once."""
SizedRuntime = Annotated[str, NameIn(HEADER_BYTES, "runtime with known file sizes")]
"""A runtime whose files are sized here."""


@dataclass(frozen=True)
class VocabularyBytes:
    """What a tokenizer takes: inside a GGUF file, and as files of its own."""

    in_gguf: int
    as_files: int


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of weights, scales included, by what a decoding step reads of them."""

    body: int
    """Matrices of the layers."""
    tables: int
    """Embeddings and head; a tied one counts once."""
    lookup: int
    """Of the tables, those of which a token reads one row."""
    vectors: int
    """Norms and biases."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.body + self.tables + self.vectors


@dataclass(frozen=True)
class FileFormat:
    """A way to write a dense decoder."""

    runtime: SizedRuntime
    weights: str
    """The number format, or llama.cpp's type."""
    tables: str

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return f"{self.runtime} {self.weights}"

    def find_fault(self, shapes: ShapeCounts) -> str:
        """Why the runtime cannot hold these shapes in this format; '' where it can."""
        for shape in shapes:
            block = self._block(shape)
            if shape.kind != "vector" and not shape.filled and shape.columns % block:
                return f"rows of {shape.columns} weights are no whole blocks of {block}"
        return ""

    def measure(self, shapes: ShapeCounts) -> WeightBytes:
        """Bytes of the weights."""
        totals = {"matrix": 0, "head": 0, "lookup": 0, "vector": 0}
        for shape, times in shapes.items():
            totals[shape.kind] += times * self._bytes(shape)
        lookup, head = totals["lookup"], totals["head"]
        return WeightBytes(totals["matrix"], head + lookup, lookup, totals["vector"])

    def measure_rest(self, shapes: ShapeCounts, *, num_layers: int, vocab: VocabularyBytes) -> int:
        """Bytes of a bundle that are no weights: names, graph, header, tokenizer."""
        rest = HEADER_BYTES[self.runtime]
        if self.runtime == "onnx":
            kind = "floats" if self.weights == "float32" else "integers"
            return rest + num_layers * GRAPH_BYTES[kind] + vocab.as_files
        tensors = sum(shapes.values())
        if self.runtime == "gguf":
            return rest + tensors * TENSOR_BYTES["gguf"] + vocab.in_gguf
        if self.weights not in ("float32", "bfloat16"):  # scales are tensors of their own
            tensors += sum(times for shape, times in shapes.items() if shape.kind != "vector")
        return rest + tensors * TENSOR_BYTES["transformers"] + vocab.as_files

    def _block(self, shape: ParameterShape) -> int:
        if self.runtime != "gguf":
            return 1  # the last block of a row is filled up
        return GGUF_BLOCKS[self.weights if shape.kind == "matrix" else self.tables][0]

    def _bytes(self, shape: ParameterShape) -> int:
        if shape.kind == "vector":
            half = self.runtime == "transformers" and self.weights == "bfloat16"
            return shape.numel * (2 if half else FLOAT_BYTES)
        name = self.weights if shape.kind == "matrix" else self.tables
        rows, columns = shape.rows, shape.columns
        if self.runtime == "gguf":
            block, size = GGUF_BLOCKS[name]
            missing = -(columns if shape.filled == "columns" else rows) % block
            if shape.filled == "columns":
                columns += missing
            elif shape.filled == "rows":
                rows += missing
            return rows * columns // block * size
        stored = _formats()[name]
        if self.runtime == "onnx" and stored.block:
            block = min(stored.block, GRAPH_BLOCKS.get(stored.kind, stored.block))
            num_blocks = -(-columns // block)
            return int(rows * num_blocks * (block * stored.bits + GRAPH_SCALE_BITS)) // 8
        return int(stored.num_bits(rows=rows, columns=columns)) // 8


@functools.cache
def _formats() -> Mapping[str, Format]:
    return list_formats()


def _gguf(weights: str) -> FileFormat:
    return FileFormat("gguf", weights, GGUF_TABLES.get(weights, weights))


FILE_FORMATS: Mapping[str, FileFormat] = {
    item.name: item
    for item in (
        FileFormat("transformers", "bfloat16", "bfloat16"),
        FileFormat("transformers", "int8", "int8"),
        FileFormat("transformers", "int4", "int8"),
        FileFormat("transformers", "int2", "int4"),
        FileFormat("transformers", "ternary", "int4"),
        FileFormat("onnx", "float32", "float32"),
        FileFormat("onnx", "int8", "int8"),
        FileFormat("onnx", "int4", "int8"),
        FileFormat("onnx", "int2", "int4"),
        FileFormat("onnx", "ternary", "int4"),
        *map(_gguf, GGUF_BLOCKS),
    )
}
"""Every way, those of one runtime together, most precise first."""
