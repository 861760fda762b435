"""When two texts ask the same, and the one check that training and held-out data share nothing.

Filters, splits and evaluation compare questions with the functions of this module alone.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from limbeck.contracts.errors import LeakError
from limbeck.contracts.records import Question, Record

DROPPED_CATEGORIES = ("P", "Z", "C", "So", "Sk")
"""Punctuation, spaces, controls, decorations and modifiers."""
KEPT_SYMBOLS = frozenset("^%\u2030")
DROPPED_SYMBOLS = frozenset("|~$")
"""Signs of mathematics and currency by their category, markup in texts."""
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
MINUS = "\u2212"
RAISED = re.compile(r"(?<=\d)[\u207a\u207b]?[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
NUMBER_SIGN = re.compile(
    "[\u00bc-\u00be\u2150-\u215f\u2189\u2460-\u249b\u24ea\u3251-\u325f\u32b1-\u32bf"
    "\u3358-\u3370\u33e0-\u33fe\U0001f100-\U0001f10a]"
)
"""One character that stands for digits: a fraction, a circled number."""
ONE_SIGN = str.maketrans("\u2044\u2215", "//")
FINE_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
LEADING_POINT = re.compile(rf"(?<![^\W{HAN}])(?<!\.)\.(?=\d)")
SIGN = re.compile(
    r"(?<=\d)\s*[-\u2010-\u2015\u301c~]+\s*(?=\d)"  # a range
    rf"|(?:(?<!\w)|(?<=[{HAN}])|(?<=\de))-(?=\d)"  # a negative number or exponent
    r"|(?<=\()\s*-\s*(?=\))"  # a negative result
)


def to_compatible(text: str) -> str:
    """The text in Unicode's compatibility form, without joining digits that are apart.

    A raised digit stays an exponent, and a character that stands for digits gets room around it.
    """
    text = NUMBER_SIGN.sub(r" \g<0> ", RAISED.sub(r"^\g<0>", text))
    return unicodedata.normalize("NFKC", text).translate(ONE_SIGN)


def normalise(text: str) -> str:
    """What two texts share when they ask or answer the same.

    Compatibility form, lower case, without punctuation, spaces and decorations. Letters, digits,
    marks and signs of mathematics stay: above 38 degrees and below are two questions. So does what
    makes a number: its sign, its point, and whatever keeps it apart from the next one.
    """
    folded = to_compatible(FINE_SPACE.sub("", text.replace("，", "、"))).casefold()
    folded = THOUSANDS.sub(lambda found: found[0].replace(",", ""), folded)
    folded = SIGN.sub(MINUS, LEADING_POINT.sub("0.", folded))
    kept: list[str] = []
    dropped = ""
    for char in folded:
        if not (char.isalnum() or _has_meaning(char)):
            dropped += char
            continue
        if dropped and char.isdecimal() and kept and kept[-1].isdecimal():
            kept.append(_separate(dropped))
        kept.append(char)
        dropped = ""
    # A mark whose letter stood behind something dropped is one character with it now.
    return unicodedata.normalize("NFC", "".join(kept))


def _separate(dropped: str) -> str:
    """What stays of the text between two digits."""
    if dropped == ".":
        return "."
    return "".join(char for char in dropped if char in ":/") or " "


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
