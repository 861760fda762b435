"""Finding texts that were read before: exactly, by hash, and nearly, by MinHash.

A candidate that the hash tables bring up counts only if the Jaccard similarity of the two texts'
character shingles, computed exactly, reaches the threshold. Left out: which text of a pair is
better; the first one read stays.
"""

import hashlib
import zlib
from typing import Annotated

import numpy as np
from datasketch import MinHash, MinHashLSH
from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.leaks import normalise


class NearConfig(Config):
    """When two free texts count as the same."""

    similarity_ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Least Jaccard similarity of the character shingles."""
    shingle_chars: Annotated[int, Field(ge=1, le=16)] = 4
    num_permutations: Annotated[int, Field(ge=16, le=256)] = 48
    """Hash functions: more find more of the pairs just above the threshold."""


class Exact:
    """Remembers the texts it has seen, letters and digits only, by their hash."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def find(self, *texts: str, id: str) -> str:
        """The id of an equal earlier text, or '' when this one is the first."""
        joined = "\n".join(map(normalise, texts)).encode()
        key = hashlib.blake2b(joined, digest_size=12).digest()
        return "" if (first := self._seen.setdefault(key, id)) == id else first


class Near:
    """Remembers free texts, and finds earlier ones that are nearly the same."""

    def __init__(self, config: NearConfig) -> None:
        self._config = config
        self._lsh = MinHashLSH(threshold=config.similarity_ratio, num_perm=config.num_permutations)
        self._blank = MinHash(num_perm=config.num_permutations, hashfunc=int)
        self._shingles: dict[str, np.ndarray] = {}

    def find(self, text: str, *, id: str) -> str:
        """The id of a nearly equal earlier text, or '' when there is none."""
        values = self._hash_shingles(normalise(text))
        sketch = self._blank.copy()
        sketch.update_batch(values.tolist())
        for candidate in sorted(map(str, self._lsh.query(sketch))):
            if jaccard(values, self._shingles[candidate]) >= self._config.similarity_ratio:
                return candidate
        self._lsh.insert(id, sketch, check_duplication=False)
        self._shingles[id] = values
        return ""

    def _hash_shingles(self, text: str) -> np.ndarray:
        width = self._config.shingle_chars
        pieces = {text[start : start + width] for start in range(max(1, len(text) - width + 1))}
        hashes = np.fromiter((zlib.crc32(piece.encode()) for piece in pieces), np.uint32)
        return np.sort(hashes)


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Size of the intersection over size of the union, of two arrays of distinct values."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(1, len(left) + len(right) - shared)
