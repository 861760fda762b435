"""What a file of each runtime takes: blocks of weights, tables, norms, names, the vocabulary.

Computed by the rules of the writers, which a test holds against what they write. Left out: whether
Limbeck makes a format's weights, which the runtimes' own tables say.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from limbeck.contracts.config import NameIn
from limbeck.models.gguf.types import BLOCKS, WEIGHTS, choose_type, find_multiple
from limbeck.quantization.formats.base import Format, list_formats
from limbeck.sizing.shape_counts import ParameterShape, ShapeCounts, ShapeKind

FLOAT_BYTES = 4
TENSOR_BYTES = {"transformers": 103, "onnx": 0, "gguf": 60}
"""Name, shape and place of one tensor. Measured on files of ours, as the next two."""
REPACKED = ("Q4_0", "Q4_K")
"""llama.cpp's types whose matrices it lays out anew for the processor, measured on x86-64."""
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
    repacked: int
    """Of the body, what a runtime lays out anew beside the mapped file."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.body + self.tables + self.vectors


@dataclass(frozen=True)
class FileFormat:
    """A way to write a dense decoder."""

    runtime: SizedRuntime
    weights: str
    """The number format, or llama.cpp's name for the types of a file."""
    tables: str = ""
    """The number format of embeddings and head; llama.cpp has rules of its own."""

    @property
    def name(self) -> str:
        """How tables and messages call it."""
        return f"{self.runtime} {self.weights}"

    def find_fault(self, shapes: ShapeCounts) -> str:
        """Why the runtime cannot hold these shapes in this format; '' where it can."""
        if self.runtime != "gguf":
            return ""  # the last block of a row is filled up
        block = find_multiple(self.weights)
        for shape in shapes:
            if shape.kind != "vector" and not shape.filled and shape.columns % block:
                return f"rows of {shape.columns} weights are no whole blocks of {block}"
        return ""

    def measure(self, shapes: ShapeCounts) -> WeightBytes:
        """Bytes of the weights."""
        totals: Counter[ShapeKind] = Counter()
        repacked = 0
        for shape, times in shapes.items():
            num_bytes = times * self._bytes(shape)
            totals[shape.kind] += num_bytes
            if shape.kind in ("matrix", "sensitive") and self._type(shape) in REPACKED:
                repacked += num_bytes
        lookup, head = totals["lookup"], totals["head"]
        body = totals["matrix"] + totals["sensitive"]
        return WeightBytes(body, head + lookup, lookup, totals["vector"], repacked)

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

    def _bytes(self, shape: ParameterShape) -> int:
        if shape.kind == "vector":
            half = self.runtime == "transformers" and self.weights == "bfloat16"
            return shape.numel * (2 if half else FLOAT_BYTES)
        rows, columns = shape.rows, shape.columns
        if self.runtime == "gguf":
            rows, columns = self._fill(shape)
            block, size = BLOCKS[self._type(shape)]
            return rows * columns // block * size
        is_table = shape.kind in ("lookup", "head")
        stored = _formats()[self.tables if is_table else self.weights]
        if self.runtime == "onnx" and stored.block:
            block = min(stored.block, GRAPH_BLOCKS.get(stored.kind, stored.block))
            num_blocks = -(-columns // block)
            return int(rows * num_blocks * (block * stored.bits + GRAPH_SCALE_BITS)) // 8
        return int(stored.num_bits(rows=rows, columns=columns)) // 8

    def _type(self, shape: ParameterShape) -> str:
        """llama.cpp's of a matrix; '' for another runtime."""
        if self.runtime != "gguf" or shape.kind == "vector":
            return ""
        return choose_type(self.weights, role=shape.kind, columns=self._fill(shape)[1])

    def _fill(self, shape: ParameterShape) -> tuple[int, int]:
        """Rows and columns in a GGUF file, with channels that fill the last block."""
        rows, columns, multiple = shape.rows, shape.columns, find_multiple(self.weights)
        if shape.filled == "columns":
            return rows, columns + -columns % multiple
        if shape.filled == "halves":
            return rows + 2 * (-(rows // 2) % multiple), columns
        return rows + (-rows % multiple if shape.filled else 0), columns


@functools.cache
def _formats() -> Mapping[str, Format]:
    return list_formats()


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
        *(FileFormat("gguf", weights) for weights in WEIGHTS),
    )
}
"""Every way, those of one runtime together, most precise first."""
