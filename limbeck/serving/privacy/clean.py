"""A text in half width without invisible characters, with the way back to where each one stood."""

import re
from dataclasses import dataclass

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff]"
)
TO_HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: " ",
    0xA0: " ",
    ord("—"): "-",
    ord("–"): "-",
    ord("−"): "-",
    ord("‐"): "-",
    ord("‑"): "-",
}
SPELLED = re.compile(r"[〇零一二三四五六七八九幺]{7,}")
SPELLED_DIGITS = str.maketrans("〇零一二三四五六七八九幺", "001234567891")


@dataclass(frozen=True)
class CleanText:
    """What patterns are matched against: character by character a piece of the original."""

    text: str
    places: tuple[int, ...]
    """Where each character stands in the original."""

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The piece of the original that a piece of the text came from."""
        return self.places[start], self.places[end - 1] + 1


def clean(original: str) -> CleanText:
    """A text as it is matched: half width, digits for spelled-out ones, nothing invisible."""
    half = original.translate(TO_HALF)
    half = SPELLED.sub(lambda match: match[0].translate(SPELLED_DIGITS), half)
    if not INVISIBLE.search(half):
        return CleanText(half, tuple(range(len(half))))
    places = tuple(place for place, sign in enumerate(half) if not INVISIBLE.match(sign))
    return CleanText("".join(half[place] for place in places), places)
