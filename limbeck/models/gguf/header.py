"""The header of a GGUF file: what it says of itself, and which tensors it holds.

Long arrays (vocabulary, merges) are skipped unless they are asked for: the `gguf` package reads
each of their items, which takes 3 seconds at 49,000 tokens. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from limbeck.contracts.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q"}
SCALARS |= {11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
LONGEST_ARRAY = 256
"""Longer arrays are kept as their number of items."""
TOKENS, TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
CONTROL_TYPES = (2, 3)
"""Tokens that llama.cpp finds in a text only where it parses special ones: unknown, control."""
FLOAT_TYPES = ("F32", "F16", "BF16")
ROTARY_FACTORS = "rope_freqs.weight"

GgufValue = str | int | float | bool | list


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]
    """The fastest axis first."""
    type: str
    """As llama.cpp calls it: F32, Q4_K, ..."""
    offset: int
    """In bytes from the start of the file."""
    num_bytes: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself."""

    path: Path
    values: Mapping[str, GgufValue]
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> str:
        """Of the model, as llama.cpp calls it."""
        return str(self.values["general.architecture"])

    @property
    def pre_tokenizer(self) -> str:
        """How llama.cpp cuts text before it merges."""
        return str(self.values.get("tokenizer.ggml.pre", "default"))

    @property
    def types(self) -> tuple[str, ...]:
        """The types of its matrices, most values first."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.shape) > 1:
                sizes[tensor.type] = sizes.get(tensor.type, 0) + prod(tensor.shape)
        return tuple(sorted(sizes, key=lambda name: -sizes[name]))

    @property
    def num_values(self) -> int:
        """Of all tensors that are weights."""
        return sum(prod(item.shape) for item in self.tensors if item.name != ROTARY_FACTORS)


def read_control_tokens(path: Path) -> tuple[str, ...]:
    """Texts of the tokens that mean something to the model, such as the borders of a turn.

    Raises:
        CheckpointError: the file is missing, or no GGUF file.
    """
    header, _ = _read(path, whole=(TOKENS, TOKEN_TYPES))  # the first of several parts will do
    tokens, types = header.values.get(TOKENS), header.values.get(TOKEN_TYPES)
    if not isinstance(tokens, list) or not isinstance(types, list):
        return ()
    return tuple(
        text for text, kind in zip(tokens, types, strict=False) if kind in CONTROL_TYPES and text
    )


def read_header(path: Path) -> Header:
    """The header of a GGUF file, after a look whether the file is whole.

    Raises:
        CheckpointError: the file is missing, no GGUF file, cut short, or one part of several.
    """
    header, stop = _read(path)
    parts = header.values.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise CheckpointError(
            f"{path}: is one of {parts} parts; join them with `llama-gguf-split --merge`"
        )
    if "general.architecture" not in header.values:
        raise CheckpointError(f"{path}: says no general.architecture, so it holds no model")
    needed = max((item.offset + item.num_bytes for item in header.tensors), default=0)
    if needed > stop:
        raise CheckpointError(
            f"{path}: has {stop:,} bytes where its tensors need {needed:,}; it was cut short, so "
            "copy it again"
        )
    return header


def _read(path: Path, *, whole: Collection[str] = ()) -> tuple[Header, int]:
    """The header, and the file's length; of arrays that `whole` names, all items are read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data, whole=whole), len(data)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path}: cannot be read as a GGUF file: {error}") from None
    except (struct.error, UnicodeDecodeError, IndexError, KeyError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: its header is damaged or cut short ({error!r}); copy the file again"
        ) from None


def _parse(path: Path, data: mmap.mmap, *, whole: Collection[str]) -> Header:
    if data[:4] != MAGIC:
        raise ValueError(f"it begins with {data[:4]!r}, a GGUF file with {MAGIC!r}")
    reader = _Reader(data, position=4)
    version = reader.integer("<I")
    if version not in VERSIONS:
        raise ValueError(f"version {version} of the format; known are {VERSIONS}")
    num_tensors, num_values = reader.integer("<Q"), reader.integer("<Q")
    values: dict[str, GgufValue] = {}
    for _ in range(num_values):
        name = reader.string()
        longest = len(data) if name in whole else LONGEST_ARRAY
        values[name] = reader.value(reader.integer("<I"), longest=longest)
    described = [reader.tensor() for _ in range(num_tensors)]
    alignment = values.get("general.alignment", 32)
    assert isinstance(alignment, int)
    start = -(-reader.position // alignment) * alignment
    return Header(path, values, tuple(_place(item, start=start) for item in described))


def _place(described: tuple[str, tuple[int, ...], int, int], *, start: int) -> TensorInfo:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415 (an extra)

    name, shape, number, offset = described
    kind = GGMLQuantizationType(number)
    block, num_bytes = GGML_QUANT_SIZES[kind]
    size = prod(shape) // block * num_bytes
    return TensorInfo(name, shape, kind.name, start + offset, size)


class _Reader:
    """Reads little-endian values one after another."""

    def __init__(self, data: mmap.mmap, *, position: int) -> None:
        self.data = data
        self.position = position

    def scalar(self, layout: str) -> int | float | bool:
        (value,) = struct.unpack_from(layout, self.data, self.position)
        self.position += struct.calcsize(layout)
        return value

    def integer(self, layout: str) -> int:
        value = self.scalar(layout)
        assert isinstance(value, int)
        return value

    def string(self) -> str:
        length = self.integer("<Q")
        end = self.position + length
        if end > len(self.data):
            raise IndexError(f"a text of {length:,} bytes at byte {self.position:,}")
        text = self.data[self.position : end].decode("utf-8")
        self.position = end
        return text

    def value(self, kind: int, *, longest: int = LONGEST_ARRAY) -> GgufValue:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        item, length = self.integer("<I"), self.integer("<Q")
        if length <= longest:
            return [self.value(item) for _ in range(length)]
        if item == STRING:
            for _ in range(length):
                length_of_item = self.integer("<Q")  # moves the position itself
                self.position += length_of_item
        else:
            self.position += length * struct.calcsize(SCALARS[item])
        return length

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, number of the type, and offset."""
        name = self.string()
        shape = tuple(self.integer("<Q") for _ in range(self.integer("<I")))
        return name, shape, self.integer("<I"), self.integer("<Q")
