"""One form for every Chinese text: markup, symbols, widths, numerals, units and punctuation.

`clean` is a pure function and idempotent: its rules run until they change nothing. A number keeps
its digits, sign, decimal point, comparison and exponent, but for Chinese numerals of counted things
that become digits; code and formulas that their markup shows stay as they are.
"""

import re

from limbeck.contracts.leaks import HAN
from limbeck.contracts.records import Reason
from limbeck.data.filters.normalization.markup import LINK, Verbatim, remove_html
from limbeck.data.filters.normalization.numerals import to_digits, unify_units
from limbeck.data.filters.normalization.rules import OnChange, Rule, apply_rules, ignore_change
from limbeck.data.filters.normalization.symbols import to_one_form, write_exponents

MAX_PASSES = 8
WIDE_END = f"{HAN}，。！？：；、（）《》“”【】…"
NARROW_TO_WIDE = {",": "，", "!": "！", "?": "？", ":": "：", ";": "；"}
NARROW_AFTER_CJK = re.compile(rf"(?<=[{HAN}”’》）】])[,!?:;]")
REPEATED = re.compile(
    r"([，。！？：；、,!?;:~—“”])\1+"
    r"|(?<![\d%])(%)\2+"
    r"|(?<![\d\"'])([\"'])\3+"  # 5'' is not 5'
    r"|(?<!-)(-)\4+(?![\d-])"
)
MIXED_END = re.compile(r"[！？!?]{2,}")
WEAK_BEFORE_STRONG = re.compile(r"[，、；：,]+(?=[。！？；])")
AFTER_STRONG = re.compile(r"(?<=[。！？])[。，、；：]+")
DOTS = re.compile(r"(?:\.{2,}|…+)[.。…]*")
STARS = re.compile(r"(?<=[\d）])( ?\*{1,2} ?)(?=[-+]?\.?[\d（])|\*")
"""Between two numbers they multiply or raise to a power."""
SPACES = re.compile(r"\s+")
SPACE_BY_CJK = re.compile(rf"(?<=[{WIDE_END}]) | (?=[{WIDE_END}])")
EMPTY_BRACKETS = re.compile(r"（\s*）|【\s*】|《\s*》|\[\s*\]")
BETWEEN_DIGITS = re.compile(rf"(?<=\d)(?:{EMPTY_BRACKETS.pattern})+(?=\d)")
SIGNED = r"(?:[-+~=][-+~=±−<>≤≥≈\s]*|—)\.?\d|\.\d|[-+][A-Za-z（]"
LEADING = re.compile(rf"^(?:(?!{SIGNED})[\s，。！？：；、,.!?:;~…\-—=+*&%）】》])+")
"""Punctuation before the first word, up to the sign of a number."""

MARKUP = Reason("markup", "标记", "markup removed")
LINKS = Reason("links", "链接", "links removed")
EXPONENTS = Reason("exponents", "指数写法", "exponents written with ^")
SYMBOLS = Reason("symbols", "符号与全半角", "widths, decorations, invisible characters")
SPACING = Reason("spacing", "空白", "spaces and line breaks")
PUNCTUATION = Reason("punctuation", "标点", "punctuation")
NUMERALS = Reason("numerals", "数字写法", "Chinese numerals to digits")
UNITS = Reason("units", "单位", "units in one form")


def _widen(text: str) -> str:
    text = text.replace("(", "（").replace(")", "）")
    return NARROW_AFTER_CJK.sub(lambda match: NARROW_TO_WIDE[match[0]], text)


def _reduce_punctuation(text: str) -> str:
    text = STARS.sub(lambda match: match[1] or "", DOTS.sub("…", text))
    text = MIXED_END.sub(lambda match: "？" if set(match[0]) & {"？", "?"} else "！", text)
    text = REPEATED.sub(lambda match: match[0][0], text)
    text = AFTER_STRONG.sub("", WEAK_BEFORE_STRONG.sub("", text))
    return EMPTY_BRACKETS.sub("", BETWEEN_DIGITS.sub(" ", text))


RULES = (
    Rule(MARKUP, remove_html),
    Rule(LINKS, lambda text: LINK.sub("", text)),
    Rule(EXPONENTS, write_exponents),
    Rule(SYMBOLS, to_one_form),
    Rule(SPACING, lambda text: SPACES.sub(" ", text)),
    Rule(PUNCTUATION, _widen),
    Rule(NUMERALS, to_digits),
    Rule(UNITS, unify_units),
    Rule(PUNCTUATION, _reduce_punctuation),
    Rule(SPACING, lambda text: SPACE_BY_CJK.sub("", text)),
    Rule(PUNCTUATION, lambda text: LEADING.sub("", text)),
    Rule(SPACING, str.strip),
)


def clean(text: str, *, on_change: OnChange = ignore_change) -> str:
    """The text in its one form; cleaning it again changes nothing."""
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text, on_change)
        if cleaned == text:
            break
        text = cleaned
    return text


def _clean_once(text: str, on_change: OnChange) -> str:
    verbatim = Verbatim()
    hidden = verbatim.hide(text)

    def note(reason: Reason, before: str, after: str) -> None:
        on_change(reason, verbatim.show(before), verbatim.show(after))

    return verbatim.show(apply_rules(hidden, rules=RULES, on_change=note))
