"""llama.cpp's own rounding of rows, for the types that the `gguf` package does not write."""

import ctypes
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from jaxtyping import Float, UInt8

from limbeck.runtimes.gguf.library import open_library

KINDS = frozenset({Kind.Q4_K, Kind.Q5_K, Kind.Q6_K})
"""The types that are rounded here."""


def quantize(rows: Float[np.ndarray, "*rows columns"], *, kind: Kind) -> UInt8[np.ndarray, "..."]:
    """Rows in one of these types, without an importance matrix.

    Raises:
        CheckpointError: llama.cpp's package is missing or of another version.
    """
    block, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    *outer, columns = rows.shape
    assert columns % block == 0, (kind, columns)
    floats = np.ascontiguousarray(rows, np.float32)
    found = np.empty((*outer, columns // block * num_bytes), np.uint8)
    pointer: Any = ctypes.POINTER(ctypes.c_float)
    written = open_library().call(
        "quantize_chunk",
        int(kind),
        floats.ctypes.data_as(pointer),
        found.ctypes.data_as(ctypes.c_void_p),
        0,
        floats.size // columns,
        columns,
        None,
    )
    assert written == found.nbytes, (kind, written, found.nbytes)
    return found
