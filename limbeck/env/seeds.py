"""Seeds that depend on several numbers, such as the run's seed and the step; shares of a text."""

import hashlib


def mix_seeds(*numbers: int, num_bits: int = 63) -> int:
    """A seed of so many bits that is a function of all the numbers; equal in every process."""
    return hash(numbers) % 2**num_bits


def draw_share(text: str, *, name: str) -> float:
    """A number from 0 to below 1 that is always the same for a text, and another for each name."""
    found = hashlib.blake2b(f"{name}\0{text}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(found) / 2**64
