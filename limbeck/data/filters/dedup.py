"""Duplicates: exact ones by hash, near ones by MinHash.

A candidate that the hash tables find counts only if the Jaccard similarity of the two texts'
character shingles, computed exactly, reaches the threshold.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from limbeck.contracts.fields import PositiveRatio, RatioBelowOne
from limbeck.contracts.leaks import MINUS, normalise
from limbeck.contracts.records import UNSCORED, Reason, Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext
from limbeck.env.progress import track

DUPLICATE = Reason("duplicate", "重复", "duplicate", counts_as="surplus")
EQUAL_SIDES = Reason("equal_sides", "两个答案相同", "a pair of equal answers")
NEAR_DUPLICATE = Reason("near_duplicate", "近似重复", "near duplicate")
NUMBER = re.compile(rf"[{MINUS}<>≤≥]*\d+(?:[.:/]\d+)*[%\u2030]?")
NEGATION = re.compile(r"[不没沒未无無非]|\b(?:no|not|never|without)\b|n[\u2019']t\b")
MAX_TABLE_THRESHOLD = 0.85
"""The highest that hash tables can be built for with any number of permutations allowed."""


class Duplicates(FilterConfig):
    """The first of equal records, and where it is asked for the first of nearly equal free texts.

    Records made from facts come first, then free text, and last free text that its source does not
    trust: of two equal records the trusted one stays. About different images, after other
    instructions, or with other worse answers the same words are different records. A pair whose two
    answers are equal prefers nothing, and is dropped as well.
    """

    kind: Literal["duplicates"] = "duplicates"
    nearly_equal: Literal["keep", "drop"] = "keep"
    """What becomes of free texts that are nearly the same as an earlier one."""
    min_similarity_ratio: PositiveRatio = 0.8
    """Jaccard similarity of the character shingles from which two free texts are nearly equal."""
    shingle_chars: Annotated[int, Field(ge=1, le=16)] = 4
    num_permutations: Annotated[int, Field(ge=16, le=256)] = 48
    """Hash functions: more find more of the pairs just above the threshold."""
    trusted_confidence: RatioBelowOne = 0.9
    """A free text whose own confidence is not above this is not trusted."""

    @override
    def applies_to(self, source: Source) -> bool:
        return True

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        def distrust(record: Record) -> int:
            if not context.sources[record.source].free_text:
                return 0
            return 2 if UNSCORED < record.confidence <= self.trusted_confidence else 1

        ordered = sorted(records, key=distrust)
        exact, near = Exact(), Near(self)
        with track("duplicates", total=len(ordered), unit="records") as advance:
            for record in ordered:
                texts = (*record.images, *record.history, record.question, record.answer)
                apart = (record.system, record.rejected)
                is_text = context.sources[record.source].free_text and not record.images
                is_text = is_text and self.nearly_equal == "drop"
                if record.rejected and record.rejected.strip() == record.answer.strip():
                    context.log.drop_record(record, reason=EQUAL_SIDES)
                elif first := exact.find(*apart, *texts, id=record.id):
                    context.log.drop_record(record, reason=DUPLICATE, detail=f"of {first}")
                elif is_text and (first := near.find("".join(texts), id=record.id, apart=apart)):
                    context.log.drop_record(record, reason=NEAR_DUPLICATE, detail=f"of {first}")
                else:
                    yield record
                advance(1)


class Exact:
    """Remembers normalised texts by their hash."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def find(self, *texts: str, id: str) -> str:
        """The id of an equal earlier text, or '' when this one is the first."""
        joined = "\n".join(normalise(text) or text.strip() for text in texts).encode()
        key = hashlib.blake2b(joined, digest_size=12).digest()
        return "" if (first := self._seen.setdefault(key, id)) == id else first


class Near:
    """Remembers free texts, and finds earlier ones that are nearly the same."""

    def __init__(self, config: Duplicates) -> None:
        from datasketch import MinHash, MinHashLSH

        self._config = config
        # Close to 1, tables for just this threshold would need more permutations than there are.
        threshold = min(config.min_similarity_ratio, MAX_TABLE_THRESHOLD)
        self._lsh = MinHashLSH(threshold=threshold, num_perm=config.num_permutations)
        self._blank = MinHash(num_perm=config.num_permutations, hashfunc=int)
        self._shingles: dict[str, np.ndarray] = {}
        self._apart: dict[str, tuple[str, ...]] = {}

    def find(self, text: str, *, id: str, apart: Sequence[str] = ()) -> str:
        """The id of a nearly equal earlier text, or '' when there is none.

        Texts apart, such as instructions, must be equal: a word makes others of them. So must the
        numbers of the texts, and their negations in Chinese and English.
        """
        beside = (*map(normalise, apart), *_statement(text))
        values = self._hash_shingles(normalise(text))
        sketch = self._blank.copy()
        sketch.update_batch(values.tolist())
        for candidate in sorted(map(str, self._lsh.query(sketch))):
            if self._apart[candidate] != beside:
                continue
            if jaccard(values, self._shingles[candidate]) >= self._config.min_similarity_ratio:
                return candidate
        self._lsh.insert(id, sketch, check_duplication=False)
        self._shingles[id] = values
        self._apart[id] = beside
        return ""

    def _hash_shingles(self, text: str) -> np.ndarray:
        width = self._config.shingle_chars
        pieces = {text[start : start + width] for start in range(max(1, len(text) - width + 1))}
        hashes = np.fromiter((zlib.crc32(piece.encode()) for piece in pieces), np.uint32)
        return np.sort(hashes)


def _statement(text: str) -> tuple[str, ...]:
    """What makes another statement of nearly the same words: its numbers, and its negations."""
    return (*NUMBER.findall(normalise(text)), *NEGATION.findall(text.casefold()))


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Size of the intersection over size of the union, of two arrays of distinct values."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(1, len(left) + len(right) - shared)
