"""When two texts ask the same, and the one check that training and held-out data share nothing.

Filters, splits and evaluation compare questions with the functions of this module alone.
"""

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from limbeck.contracts.errors import LeakError
from limbeck.contracts.records import Question, Record

DROPPED_CATEGORIES = ("P", "Z", "C", "So", "Sk")
"""Punctuation, spaces, controls, decorations and modifiers."""
KEPT_SYMBOLS = frozenset("^%\u2030")
DROPPED_SYMBOLS = frozenset("|~$")
"""Signs of mathematics and currency by their category, markup in texts."""
MIN_SIMILARITY_RATIO = 0.6
"""Of the pairs of characters of two texts that are nearly equal."""
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
MINUS = "\u2212"
RAISED = re.compile(r"(?<=\d)[\u207a\u207b]?[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
NUMBER_SIGN = re.compile(
    "[\u00bc-\u00be\u2150-\u215f\u2189\u2460-\u249b\u24ea\u3251-\u325f\u32b1-\u32bf"
    "\u3358-\u3370\u33e0-\u33fe\U0001f100-\U0001f10a]"
)
"""One character that stands for digits: a fraction, a circled number."""
ONE_SIGN = str.maketrans("\u2044\u2215\u066b\u066c", "//.,")
"""Fraction and division slash; the decimal and the thousands mark of Arabic digits."""
LANGUAGE_SHARP = re.compile(r"(?<![a-z\d])([cf])#(?![a-z\d])")
"""C# and F#, which are other languages than C and F; apart, a rank or a key signature."""
FINE_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
THOUSANDS = re.compile(r"(?<![\d.,])(?!0)\d{1,3}(?:,\d{3})+(?![\d,])")
LEADING_POINT = re.compile(rf"(?<![^\W{HAN}])(?<!\.)\.(?=\d)")
SIGN = re.compile(
    r"(?<=\d)\s*[-\u2010-\u2015\u301c~]+\s*(?=\d)"  # a range
    rf"|(?:(?<!\w)|(?<=[{HAN}])|(?<=\de))-(?=\d)"  # a negative number or exponent
    r"|(?<=\()\s*-\s*(?=\))"  # a negative result
    # another one: A-, HIV-, CD8-
    r"|(?:(?<=[^\W\d_])|(?<=[^\W\d_]\d)|(?<=[^\W\d_]\d\d))-(?=\s*(?:$|[),.;\u3001\u3002]))"
    # before a variable, a root or a function: -x, e^-x
    r"|(?<![\w-])-(?=[\u221a\u221e]|[a-z\u03b1-\u03c9](?!\w)|(?:sin|cos|tan|log|ln|exp|sqrt)\b)"
    r"|(?<=[=^({])-(?=\w)"
)
OPERATORS = {"!=": "\u2260", "&&": "\u2227", "||": "\u2228"}
"""Signs of code that mean what a sign of mathematics does."""
DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""They order text that runs from right to left, and stand between a number and its sign."""


def to_compatible(text: str) -> str:
    """The text in Unicode's compatibility form, without joining digits that are apart.

    A raised digit stays an exponent, and a character that stands for digits gets room around it.
    """
    text = RAISED.sub(r"^\g<0>", DIRECTION_MARKS.sub("", text))
    text = NUMBER_SIGN.sub(r" \g<0> ", text)
    return unicodedata.normalize("NFKC", text).translate(ONE_SIGN)


@functools.lru_cache(maxsize=4096)  # one record's texts pass here in every filter
def normalise(text: str) -> str:
    """What two texts share when they ask or answer the same.

    Compatibility form, lower case, without punctuation, spaces and decorations. Letters, digits,
    marks and signs of mathematics stay: above 38 degrees and below are two questions. So does what
    makes a number: its sign, its point, and whatever keeps it apart from the next one.
    """
    folded = to_compatible(FINE_SPACE.sub("", text.replace("，", "、"))).casefold()
    for written, sign in OPERATORS.items():
        folded = folded.replace(written, sign)
    folded = THOUSANDS.sub(lambda found: found[0].replace(",", ""), folded)
    folded = LANGUAGE_SHARP.sub("\\1\u266f", SIGN.sub(MINUS, LEADING_POINT.sub("0.", folded)))
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


class NearIndex:
    """Texts, to find the one that another text nearly equals.

    Two texts nearly equal each other when the Jaccard similarity of their pairs of neighbouring
    characters is at least t = MIN_SIMILARITY_RATIO. With pairs in one order, two such sets x and y
    share one of the first |x| - ceil(t |x|) + 1 and |y| - ceil(t |y|) + 1, so only these are
    looked up (prefix filtering: Bayardo, Ma and Srikant 2007, sec. 3.2, rarest pairs first).
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        sets = [character_pairs(text) for text in texts]
        self._rank = Counter(pair for pairs in sets for pair in pairs)
        self._sets: list[frozenset[str]] = []
        self._places: dict[str, list[int]] = {}
        for place, pairs in enumerate(sets):
            self._sets.append(pairs)
            for pair in self._prefix(pairs):
                self._places.setdefault(pair, []).append(place)

    def find(self, text: str) -> int | None:
        """The place of the first text that this one nearly equals; None where there is none."""
        pairs = character_pairs(text)
        candidates = {place for pair in self._prefix(pairs) for place in self._places.get(pair, ())}
        for place in sorted(candidates):
            shared = len(pairs & self._sets[place])
            whole = len(pairs) + len(self._sets[place]) - shared
            if whole and shared >= MIN_SIMILARITY_RATIO * whole:
                return place
        return None

    def _prefix(self, pairs: frozenset[str]) -> list[str]:
        count = len(pairs) - math.ceil(MIN_SIMILARITY_RATIO * len(pairs)) + 1
        return sorted(pairs, key=lambda pair: (self._rank[pair], pair))[:count]


def character_pairs(text: str) -> frozenset[str]:
    """Each two neighbouring characters of what the text says; a single one by itself."""
    key = normalise(text)
    return frozenset(key[place : place + 2] for place in range(max(1, len(key) - 1))) - {""}


class LeakIndex:
    """Records and questions by what they ask, to find others that ask the same.

    Two of them ask the same when they share a question text, a group or an image. A question that
    has no earlier turns is compared with the last turn of a conversation as well. What nearly
    equals a question written by hand asks the same, too: people's questions are few and have no
    form, so whoever has read one in other words has read it.
    """

    def __init__(self, items: Iterable[Record | Question]) -> None:
        self._items: dict[tuple[str, str], Record | Question] = {}
        self._written: list[Question] = []
        for item in items:
            for key in _keys(item, is_sought=False):
                self._items.setdefault(key, item)
            if isinstance(item, Question) and item.is_written:
                self._written.append(item)
        self._near = NearIndex(item.question for item in self._written)

    def find(self, item: Record | Question) -> tuple[Record | Question, str] | None:
        """What was given and asks the same, and what the two share; None where nothing does."""
        for key in _keys(item, is_sought=True):
            if key in self._items:
                return self._items[key], key[1]
        if self._written and isinstance(item, Record) and item.question:
            place = self._near.find(item.question)
            if place is not None:
                return self._written[place], self._written[place].question
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
