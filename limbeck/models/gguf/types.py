"""llama.cpp's types by name, and which of them the matrices of a file get.

Without the `gguf` package, which devices and plans may lack. The mixes Q4_K_M and Q6_K are those of
llama.cpp's own quantiser (`llama_tensor_get_type_impl` in src/llama-quant.cpp), without an
importance matrix. Left out: its exceptions for mixtures (`runtimes.gguf.mixes`) and for 70 B.
"""

from collections.abc import Mapping
from typing import Literal

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q6_K": (256, 210),
    "Q5_K": (256, 176),
    "Q5_1": (32, 24),
    "Q5_0": (32, 22),
    "Q4_1": (32, 20),
    "Q4_K": (256, 144),
    "Q4_0": (32, 18),
    "TQ2_0": (256, 66),
    "TQ1_0": (256, 54),
}
"""Weights and bytes of a block of each type, scales included."""
MIXES: Mapping[str, str] = {"Q6_K": "Q6_K", "Q4_K_M": "Q4_K"}
"""The type of most matrices."""
MORE_BITS = "Q6_K"
"""What a mix gives the head and the sensitive matrices."""
SHORT_ROWS: Mapping[str, str] = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What rows get that are no whole blocks of 256."""
TABLES: Mapping[str, str] = {"Q4_1": "Q8_0", "Q4_0": "Q8_0", "TQ2_0": "Q4_0", "TQ1_0": "Q4_0"}
"""The type of embeddings and head, where it is another than that of the layers; those of a ternary
body in 4 bits, as such a body is chosen where every byte counts."""
WEIGHTS = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q4_1", "Q4_K_M", "Q4_0", "TQ2_0", "TQ1_0")
"""What a file can be written in, most precise first."""
LONG_BLOCK, SHORT_BLOCK = 256, 32
MatrixRole = Literal["lookup", "head", "matrix", "sensitive"]
"""Embeddings that are not the head, those that are, a matrix of a layer, and one of the matrices to
which a mix gives more bits."""


def choose_type(weights: str, *, role: MatrixRole, columns: int) -> str:
    """The type of a matrix of floats, by the length of its rows, in a file of these weights."""
    if weights not in MIXES:
        return TABLES.get(weights, weights) if role in ("lookup", "head") else weights
    found = MORE_BITS if role in ("head", "sensitive") else MIXES[weights]
    return shorten(found, columns=columns)


def shorten(found: str, *, columns: int) -> str:
    """A type of a mix, or what rows of so many columns get in its place."""
    return SHORT_ROWS.get(found, found) if columns % LONG_BLOCK else found


def find_multiple(weights: str) -> int:
    """Of which number rows have to be a multiple; a mix has types for shorter blocks."""
    return SHORT_BLOCK if weights in MIXES else BLOCKS[weights][0]


def gets_more_bits(layer: int, *, num_layers: int) -> bool:
    """Whether a mix gives more bits to this layer's values and last feed-forward matrix."""
    eighth = num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
