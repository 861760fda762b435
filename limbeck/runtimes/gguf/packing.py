"""Rows of numbers as the bytes of llama.cpp's types, and codes carried into them as they are."""

from functools import partial

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from jaxtyping import Int8, Shaped, UInt8

from limbeck.contracts.errors import CheckpointError
from limbeck.runtimes.gguf import quantizer

BYTE = 8


def permute_rows(rows: np.ndarray, *, num_heads: int) -> np.ndarray:
    """Rows of each head with the halves of rotary pairs side by side."""
    halves = rows.reshape(num_heads, 2, len(rows) // num_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def pack_blocks(codes: np.ndarray, scale: np.ndarray) -> UInt8[np.ndarray, "rows bytes"]:
    """Q8_0: of each block the scale in float16, then its integers."""
    blocks = codes.reshape(*scale.shape, -1).view(np.uint8)
    halves = np.ascontiguousarray(scale)[..., None].view(np.uint8)
    return np.concatenate([halves, blocks], axis=-1).reshape(len(codes), -1)


def unpack(packed: UInt8[np.ndarray, "rows bytes"], *, bits: int) -> Int8[np.ndarray, "rows codes"]:
    """The integers that bytes hold around their zero, earlier columns in the lower bits."""
    shares = [packed >> shift & (1 << bits) - 1 for shift in range(0, BYTE, bits)]
    return np.stack(shares, axis=-1).reshape(len(packed), -1).astype(np.int8) - (1 << bits - 1)


def pack_halves(codes: np.ndarray, scale: np.ndarray) -> UInt8[np.ndarray, "rows bytes"]:
    """Q4_0: of each block the scale in float16, then bytes of one integer of each of its halves."""
    blocks = (codes + 8).astype(np.uint8).reshape(*scale.shape, 2, -1)
    halves = np.ascontiguousarray(scale)[..., None].view(np.uint8)
    both = blocks[..., 0, :] | (blocks[..., 1, :] << 4)
    return np.concatenate([halves, both], axis=-1).reshape(len(codes), -1)


def pack_ternary(
    codes: np.ndarray, scale: np.ndarray, *, kind: Kind
) -> UInt8[np.ndarray, "rows bytes"]:
    """TQ2_0 or TQ1_0, whose own rounding keeps numbers that are a block's largest one or 0."""
    blocks = codes.reshape(*scale.shape, -1) * scale.astype(np.float32)[..., None]
    return gguf.quantize(blocks.reshape(len(codes), -1), kind)


PACK = {
    Kind.Q8_0: pack_blocks,
    Kind.Q4_0: pack_halves,
    Kind.TQ2_0: partial(pack_ternary, kind=Kind.TQ2_0),
    Kind.TQ1_0: partial(pack_ternary, kind=Kind.TQ1_0),
}


def pad(values: np.ndarray, *, rows: int, columns: int, num_parts: int = 1) -> np.ndarray:
    """With so many more columns of zeros, and so many rows behind each part."""
    if not rows and not columns:
        return values
    parts = values.reshape(num_parts, -1, values.shape[1])
    more = np.pad(parts, ((0, 0), (0, rows), (0, columns)))
    return more.reshape(-1, more.shape[-1])


def round_rows(rows: np.ndarray, *, kind: Kind, name: str) -> Shaped[np.ndarray, "..."]:
    """Floats in one of llama.cpp's types, rounded by the `gguf` package or llama.cpp itself.

    Raises:
        CheckpointError: a number is beyond what float16 holds.
    """
    if kind == Kind.F32:
        return rows
    if kind in quantizer.KINDS:
        return quantizer.quantize(rows, kind=kind)
    with np.errstate(over="ignore"):
        found = gguf.quantize(rows, kind)
    if kind == Kind.F16 and not np.isfinite(found).all():
        raise CheckpointError(
            f"{name}: holds {np.abs(rows).max():.4g}, beyond the 65504 of float16; state "
            "`weights: BF16` or `weights: F32`"
        )
    return found
