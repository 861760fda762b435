"""Characters of Chinese texts in one form: widths, exponents, and decorations that go.

Compatibility forms are taken only where the number that a text holds stays the same: a circled 1
or a one-half sign before a digit would otherwise become another number.
"""

import re
import unicodedata
from functools import lru_cache

from limbeck.data.filters.normalization.markup import is_placeholder

KEPT_WIDE = frozenset("，！？：；（）")
"""Full-width punctuation that compatibility normalisation would narrow; Chinese text keeps it."""
KEPT_SYMBOLS = frozenset("℃°^")
STRAY = frozenset("#\\※†‡@|¤•◦⁂_`")
STRAY_CATEGORIES = frozenset({"So", "Sk", "Cc", "Co", "Cs", "Cn", "Me"})
GONE = "\0"
"""Stands for a decoration until it is known what it stood between."""
GONE_BETWEEN_DIGITS = re.compile(r"(?<=\d)\0+(?=\d)")
DOLLAR = re.compile(r"\$(?! ?[.\d])")
VARIATION_SELECTOR = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
KEYCAP = re.compile("([0-9#*])\ufe0f?\u20e3")
CIRCLED = "⓪①②③④⑤⑥⑦⑧⑨"
HEAVY_SIGNS = str.maketrans({"➕": "+", "➖": "-", "✖": "×", "➗": "÷"})
ROUND_ZERO = re.compile("(?<=[零〇一二三四五六七八九○◯])[○◯]|[○◯](?=[零〇一二三四五六七八九])")
SQUARED_UNIT = re.compile("[㎟-㎦㎨㎮㎯]")
SUPERSCRIPTS = "\u00b2\u00b3\u00b9\u2070\u2071\u2074-\u207f"
SUPERSCRIPT = re.compile(f"(?<=[A-Za-z0-9)）\\]μµ°])[{SUPERSCRIPTS}]+|[{SUPERSCRIPTS}]+(?!\\d)")
"""After a letter or digit, or not before a digit."""
SIGNS_ONLY = re.compile("[\u207a\u207b]+")
SUBSCRIPT = re.compile("(?<=[A-Za-z])(?<!log)(?<!lg)(?<!ln)[\u2080-\u2089]+(?![\\d\u2080-\u209c])")


def write_exponents(text: str) -> str:
    """The text with exponents as `10^-7`, and index digits of chemistry as plain ones."""
    text = SQUARED_UNIT.sub(lambda match: _one_step(match[0]), text)
    text = SUBSCRIPT.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return SUPERSCRIPT.sub(_write_exponent, text)


def _one_step(char: str) -> str:
    codes = unicodedata.decomposition(char).split()[1:]
    return "".join(chr(int(code, 16)) for code in codes)


def _write_exponent(match: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-")
    before = match.string[: match.start()][-1:]
    if SIGNS_ONLY.fullmatch(match[0]) or not re.match(r"[A-Za-z0-9)）\]μµ°]", before):
        return plain
    after = match.string[match.end() : match.end() + 1]
    return f"^{plain}" + (" " if after.isdigit() else "")


def to_one_form(text: str) -> str:
    """The text in compatibility form where that says the same, without decorations."""
    text = KEYCAP.sub(lambda m: CIRCLED[int(m[1])] if m[1].isdigit() else "", text)
    text = VARIATION_SELECTOR.sub("", text.translate(HEAVY_SIGNS))
    text = DOLLAR.sub(GONE, ROUND_ZERO.sub("〇", unicodedata.normalize("NFC", text)))
    text = "".join(map(_one_form, text))
    text = GONE_BETWEEN_DIGITS.sub(" ", text).replace(GONE, "")
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=65536)
def _one_form(char: str) -> str:
    """A character in compatibility form; `GONE` where it is a decoration."""
    if char in KEPT_WIDE or char in KEPT_SYMBOLS or is_placeholder(char):
        return char
    normal = unicodedata.normalize("NFKC", char)
    if _joins_digits(char, normal):
        return char
    return "".join(GONE if _is_stray(item) else item for item in normal if not _is_hidden(item))


def _joins_digits(char: str, normal: str) -> bool:
    """Whether the compatibility form would run together with the digits beside it."""
    is_digit = unicodedata.category(char) == "Nd"
    return not is_digit and normal != char and (normal[0].isdigit() or normal[-1].isdigit())


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) == "Cf"


def _is_stray(char: str) -> bool:
    if char in KEPT_SYMBOLS or char in "\t\n\r" or is_placeholder(char):
        return False
    return char in STRAY or unicodedata.category(char) in STRAY_CATEGORIES
