"""Whole numbers of a few bits each, side by side in bytes."""

import numpy as np
from jaxtyping import Int, UInt8

WIDEST_BITS = 25
"""A number and the up to 7 bits before it, in four bytes."""


def num_bits(count: int) -> int:
    """Bits that number `count` things, at least 1."""
    return max(1, (count - 1).bit_length())


def packed_bytes(count: int, *, bits: int) -> int:
    """Bytes that so many numbers take."""
    return -(-count * bits // 8)


def pack(
    values: Int[np.ndarray, "rows numbers"], *, bits: int
) -> UInt8[np.ndarray, "rows num_bytes"]:
    """Each row's numbers, lowest bit first, in as few bytes as they take."""
    assert 1 <= bits <= WIDEST_BITS
    planes = (values[:, :, None] >> np.arange(bits)) & 1
    flat = planes.reshape(len(values), values.shape[1] * bits).astype(np.uint8)
    return np.packbits(flat, axis=1, bitorder="little")


def unpack(
    packed: UInt8[np.ndarray, "rows num_bytes"], *, count: int, bits: int
) -> Int[np.ndarray, "rows {count}"]:
    """The first `count` numbers of every row, as int32.

    Every number lies within the four bytes from the one where it starts, so three operations on
    all rows at once read them all.
    """
    assert 1 <= bits <= WIDEST_BITS
    rows, width = packed.shape
    padded = np.zeros((rows, width + 3), dtype=np.uint8)
    padded[:, :width] = packed
    words = np.ndarray((rows, width), "<u4", padded.data, strides=(width + 3, 1))
    starts = np.arange(count) * bits
    values = words[:, starts // 8]
    values >>= (starts % 8).astype(np.uint32)
    values &= np.uint32((1 << bits) - 1)
    return values.view(np.int32)


def pack_at(
    flags: UInt8[np.ndarray, " num_bits"],
    places: Int[np.ndarray, " numbers"],
    values: Int[np.ndarray, " numbers"],
    *,
    bits: int,
) -> None:
    """Write each number's bits, lowest first, from its place on; `flags` holds one bit a byte."""
    shifts = np.arange(bits)
    flags[places[:, None] + shifts] = (values[:, None] >> shifts) & 1


def unpack_at(
    packed: UInt8[np.ndarray, " num_bytes"], places: Int[np.ndarray, " numbers"], *, bits: int
) -> Int[np.ndarray, " numbers"]:
    """The numbers that start at these bits, as int32."""
    assert 1 <= bits <= WIDEST_BITS
    padded = np.zeros(len(packed) + 3, dtype=np.uint8)
    padded[: len(packed)] = packed
    words = np.ndarray((len(packed),), "<u4", padded.data, strides=(1,))
    values = words[places >> 3]
    values >>= (places & 7).astype(np.uint32)
    values &= np.uint32((1 << bits) - 1)
    return values.view(np.int32)
