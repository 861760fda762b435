"""How much of a question a model's training questions hold: a measure that needs no model.

A question of another domain or language shares few n-grams of characters with the training
questions. Texts without spaces between words (Chinese, Japanese, Korean, Thai) are compared by
pairs of characters, others by five characters that may reach over a word's end. Closing marks do
not count: people leave them out.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt32

from limbeck.contracts.errors import CheckpointError

FAMILIAR = "familiar_ngrams.npy"
MAX_NGRAMS = 1 << 16
"""The most frequent ones are kept: 256 KiB at most."""
MAX_CHARS = 4000
"""Of a question; the rest of a longer one does not count."""
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts that are compared by pairs: Thai, Lao, Burmese, Khmer, kana, Han, Hangul."""
NUM_CHARS = {True: 2, False: 5}
"""Characters of an n-gram, by whether the script has no spaces."""
_RUN = re.compile(f"([{UNSPACED}]+)|([^{UNSPACED}]+)")
_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s+")


@final
class Familiarity:
    """The n-grams of training questions, by their hashes."""

    def __init__(self, hashes: UInt32[np.ndarray, " ngrams"]) -> None:
        self._hashes = np.sort(hashes)

    @classmethod
    def of(cls, questions: Iterable[str]) -> "Familiarity":
        """What these questions hold."""
        counts: Counter[int] = Counter()
        for question in questions:
            counts.update(set(hash_ngrams(question)))
        kept = sorted(counts, key=lambda ngram: (-counts[ngram], ngram))[:MAX_NGRAMS]
        return cls(np.array(sorted(kept), dtype=np.uint32))

    @classmethod
    def read(cls, folder: Path) -> "Familiarity":
        """What `write` has written.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        path = folder / FAMILIAR
        try:
            hashes = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error}); make the model again"
            ) from None
        if hashes.dtype != np.uint32 or hashes.ndim != 1:
            raise CheckpointError(
                f"{path}: {hashes.dtype} of shape {hashes.shape}, expected a list of uint32; make "
                "the model again"
            )
        return cls(hashes)

    def write(self, folder: Path) -> None:
        """Write the hashes, 4 bytes each."""
        np.save(folder / FAMILIAR, self._hashes)

    def ratio(self, question: str, *, unseen_ngrams: int) -> float:
        """The share of the question's n-grams that the training questions hold.

        So many n-grams are added to the question's own, as if it had them and no training question
        did: of two questions that share a half, the longer one shares more words.
        """
        ngrams = np.array(hash_ngrams(question), dtype=np.uint32)
        # A search for each: `np.isin` would build a table of all hashes at every question.
        ends = [np.searchsorted(self._hashes, ngrams, side=side) for side in ("left", "right")]
        return float((ends[0] < ends[1]).sum() / (len(ngrams) + unseen_ngrams))


def hash_ngrams(question: str) -> list[int]:
    """The hash of every n-gram of a question, at least one.

    Case, width, digits and closing marks do not count.
    """
    return [zlib.crc32(ngram.encode("utf-8", "replace")) for ngram in split_ngrams(question)]


def split_ngrams(question: str) -> Sequence[str]:
    """The n-grams of a question, at least one."""
    text = unicodedata.normalize("NFKC", question[:MAX_CHARS]).casefold()
    text = _DIGIT.sub("0", _SPACE.sub(" ", text)).strip()
    text = _strip_marks(text) or text
    found: list[str] = []
    for unspaced, spaced in _RUN.findall(text):
        run, size = (
            (unspaced, NUM_CHARS[True]) if unspaced else (f" {spaced.strip()} ", NUM_CHARS[False])
        )
        found += [run[at : at + size] for at in range(max(1, len(run) - size + 1))]
    return found or [""]


def _strip_marks(text: str) -> str:
    end = len(text)
    while end and unicodedata.category(text[end - 1])[0] in "PZ":
        end -= 1
    return text[:end]
