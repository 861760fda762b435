"""When two texts ask the same, and the one check that training and held-out data share nothing.

Filters, splits and evaluation compare questions with the functions of this module alone.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from limbeck.contracts.errors import LeakError
from limbeck.contracts.records import Question, Record

DROPPED_CATEGORIES = ("P", "Z", "C", "So", "Sk")
"""Punctuation, spaces, controls, decorations and modifiers."""
KEPT_SYMBOLS = frozenset("^")
DROPPED_SYMBOLS = frozenset("|~$")
"""Signs of mathematics and currency by their category, markup in texts."""


def normalise(text: str) -> str:
    """What two texts share when they ask or answer the same.

    Compatibility form, lower case, without punctuation, spaces and decorations. Letters, digits,
    marks and signs of mathematics stay: above 38 degrees and below are two questions.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum() or _has_meaning(char))


def _has_meaning(char: str) -> bool:
    if char in KEPT_SYMBOLS:
        return True
    dropped = unicodedata.category(char).startswith(DROPPED_CATEGORIES)
    return not dropped and char not in DROPPED_SYMBOLS


def question_key(record: Record) -> str:
    """What a record asks, whatever its spacing, punctuation and width; '' for plain text.

    About an image, the question is what the image is: many images are asked about in one way.
    """
    if record.images:
        return ""
    return normalise("".join((*record.history, record.question)))


class LeakIndex:
    """Records and questions by what they ask, to find others that ask the same.

    Two of them ask the same when they share a question text, a group or an image. A question that
    has no earlier turns is compared with the last turn of a conversation as well.
    """

    def __init__(self, items: Iterable[Record | Question]) -> None:
        self._items: dict[tuple[str, str], Record | Question] = {}
        for item in items:
            for key in _keys(item, is_sought=False):
                self._items.setdefault(key, item)

    def find(self, item: Record | Question) -> tuple[Record | Question, str] | None:
        """What was given and asks the same, and what the two share; None where nothing does."""
        for key in _keys(item, is_sought=True):
            if key in self._items:
                return self._items[key], key[1]
        return None


def _keys(item: Record | Question, *, is_sought: bool) -> Iterator[tuple[str, str]]:
    """Pairs of a kind and a value: two items leak where one's sought key is the other's own."""
    if isinstance(item, Record):
        text, last = question_key(item), "" if item.images else normalise(item.question)
        kind = "asked" if is_sought else "turn"
    else:
        text = "" if item.images else normalise("".join((*item.history, item.question)))
        last = "" if item.history else text
        kind = "turn" if is_sought else "asked"
    pairs = [("text", text), (kind, last), ("group", item.group)]
    pairs += [("image", image.rsplit("/", 1)[-1]) for image in item.images]
    yield from (pair for pair in pairs if pair[1])


def check_leaks(
    items: Iterable[Record | Question],
    *,
    held_out: Iterable[Record | Question],
    path: Path | str = "",
) -> int:
    """The number of items compared; none of them asks what a held-out one asks.

    Raises:
        LeakError: one does; with both, with what they share, and the line where `path` holds it.
    """
    index = LeakIndex(held_out)
    line = 0
    for line, item in enumerate(items, start=1):
        if found := index.find(item):
            other, shared = found
            raise LeakError(
                f"{_describe(item)} and {_describe(other)}, which is held out, share {shared!r}; "
                "remove it from one of the two sources, or split with another seed",
                path=path,
                line=line if path else 0,
            )
    return line


def _describe(item: Record | Question) -> str:
    if isinstance(item, Question):
        return f"{item.task} question {item.id!r}"
    return f"record {item.id!r} ({item.place or item.source})"
