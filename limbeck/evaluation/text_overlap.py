"""How much of a written answer a free one holds: token F1, chrF and ROUGE-L, each 0 to 1.

chrF is sacrebleu's and the longest common subsequence rapidfuzz's. A token is a word, a character
of a script that writes no spaces, or a quantity.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from limbeck.evaluation.quantities import Quantity, split_quantities

UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u0f00", "\u0fff"),  # Tibetan
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3005", "\u3007"),
    ("\u3040", "\u30ff"),  # kana
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
"""First and last character of scripts that put no spaces between words."""


def tokenize(text: str, *, language: str = "") -> list[str]:
    """The tokens of a text, without case and punctuation; a quantity is one, in its base unit."""
    tokens = []
    for part in split_quantities(text, language=language):
        tokens += [str(part)] if isinstance(part, Quantity) else _words(part.casefold())
    return tokens


def _words(text: str) -> list[str]:
    words: list[str] = []
    is_open = False
    for char in text:
        kind = unicodedata.category(char)
        if kind[0] == "M" and words:
            words[-1] += char
        elif kind[0] not in "LMN":
            is_open = False
            if kind in ("Sm", "Sc"):
                words.append(char)
        elif any(first <= char <= last for first, last in UNSPACED):
            words.append(char)
            is_open = False
        elif is_open:
            words[-1] += char
        else:
            words.append(char)
            is_open = True
    return words


def token_f1(tokens: Sequence[str], *, expected: Sequence[str]) -> float:
    """F1 of the tokens as bags (Rajpurkar et al. 2016, arXiv:1606.05250)."""
    hits = (Counter(tokens) & Counter(expected)).total()
    return 2 * hits / (len(tokens) + len(expected)) if hits else 0.0


def rouge_l(tokens: Sequence[str], *, expected: Sequence[str]) -> float:
    """F1 of the longest common subsequence (Lin 2004, ROUGE)."""
    from rapidfuzz.distance import LCSseq

    hits = LCSseq.similarity(tokens, expected)
    return 2 * hits / (len(tokens) + len(expected)) if hits else 0.0


def chrf(answer: str, *, expected: str) -> float:
    """chrF2 of one sentence (Popovic 2015): F-score of character n-grams up to 6."""
    from sacrebleu.metrics import CHRF

    return CHRF().sentence_score(answer, [expected]).score / 100
