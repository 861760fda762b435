"""The least that any text needs: code, mathematics, Markdown and marks keep every sign.

Left out on purpose: Unicode's normal forms as a whole. They rewrite the signs of ohm, kelvin and
angstrom, and reorder the marks of Hebrew or Arabic; here only a letter and its marks are composed.
"""

import re
import unicodedata

from limbeck.contracts.records import Reason
from limbeck.data.filters.normalization.rules import OnChange, Rule, apply_rules, ignore_change

MARKED = re.compile(
    "[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?"  # parts of one Korean syllable
    "|[^\\W\\d_][\u0300-\u036f\u093c\u0654\u0655\u3099\u309a]+"
)
"""A letter with marks that Unicode may hold as one character."""
ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
BETWEEN_WORDS = re.compile(r"(?<=\w)[\x00-\x08\x0e-\x1f\x7f]+(?=\w)")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]+")
LINE_END = re.compile(r"\r\n?|[\x0b\x0c]")
OUTER = re.compile(r"\A(?:[ \t\ufeff]*\n)*\ufeff*|[ \t\n\ufeff]+\Z")
"""Not the spaces before the first word: they indent code."""

CONTROLS = Reason("controls", "控制字符", "control characters")
LINE_ENDS = Reason("line_ends", "换行符", "line ends")
COMPOSED = Reason("composed", "组合字符", "letters composed with their marks")
OUTER_BLANKS = Reason("outer_blanks", "首尾空白", "blank lines around the text")


def _remove_controls(text: str) -> str:
    """Between two words or numbers a control stands for a space: 5 and 3 never become 53."""
    text = BETWEEN_WORDS.sub(" ", ESCAPE_SEQUENCE.sub("", text))
    return CONTROL.sub("", text)


def _compose(match: re.Match[str]) -> str:
    composed = unicodedata.normalize("NFC", match[0])
    base = match[0][0]
    is_one = len(composed) == 1 and unicodedata.normalize("NFC", base) == base
    return composed if is_one else match[0]


RULES = (
    Rule(LINE_ENDS, lambda text: LINE_END.sub("\n", text)),
    Rule(CONTROLS, _remove_controls),
    Rule(COMPOSED, lambda text: MARKED.sub(_compose, text)),
    Rule(OUTER_BLANKS, lambda text: OUTER.sub("", text)),
)


def clean(text: str, *, on_change: OnChange = ignore_change) -> str:
    """The text with its signs and line breaks as they are; cleaning it again changes nothing."""
    return apply_rules(text, rules=RULES, on_change=on_change)
