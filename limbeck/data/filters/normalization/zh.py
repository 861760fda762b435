"""One form for every Chinese text: markup, symbols, widths, numerals, units and punctuation.

`clean` is a pure function and idempotent: its rules run until they change nothing.
"""

import dataclasses
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Literal

from typing_extensions import override

from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

MAX_PASSES = 8
CJK = "\u3400-\u4dbf\u4e00-\u9fff"
KEPT_WIDE = set("，！？：；（）")
"""Full-width punctuation that compatibility normalisation would narrow; Chinese text keeps it."""
KEPT_SYMBOLS = set("℃°^")
STRAY = set("#\\※†‡@|$¤•◦⁂_`")
LINK = re.compile(r"(?:https?://|www\.)[!-~]+", re.IGNORECASE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
SUPERSCRIPT = re.compile(r"(?<=\d)[\u00b2\u00b3\u00b9\u2070-\u2079]+")
NARROW_TO_WIDE = {",": "，", "!": "！", "?": "？", ":": "：", ";": "；"}
NARROW_AFTER_CJK = re.compile(rf"(?<=[{CJK}”’》）】])[,!?:;]")
REPEATED = re.compile(r"([，。！？：；、,!?;:~\-—=+*&%\"'“”])\1+")
MIXED_END = re.compile(r"[！？!?]{2,}")
WEAK_BEFORE_STRONG = re.compile(r"[，、；：,]+(?=[。！？；])")
AFTER_STRONG = re.compile(r"(?<=[。！？])[。，、；：]+")
DOTS = re.compile(r"(?:\.{2,}|…+)[.。…]*")
STRAY_STARS = re.compile(r"\*(?!\d)|(?<!\d)\*")
SPACES = re.compile(r"\s+")
SPACE_BY_CJK = re.compile(
    rf"(?<=[{CJK}，。！？：；、（）《》“”【】…]) | (?=[{CJK}，。！？：；、（）《》“”【】…])"
)
EMPTY_BRACKETS = re.compile(r"（\s*）|【\s*】|《\s*》|\[\s*\]")
LEADING = re.compile(r"^[\s，。！？：；、,.!?:;~…\-—=+*&%）】》]+")

DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
POWERS = {"十": 10, "百": 100, "千": 1000, "万": 10000}
ONES = "一二两三四五六七八九"
COUNTED = (
    "毫米汞柱|国际单位|个小时|个半月|个月|个疗程|分钟|小时|星期|礼拜|周岁|公斤|千克|毫克|微克|毫升|"
    "厘米|公分|毫米|摄氏度|疗程|天|日|周|年|岁|次|片|粒|颗|支|袋|瓶|盒|滴|克|升|斤|秒|米|倍"
)
PROTECTED = (
    "百日咳|三日疟|间日疟|一次性|一日三餐|一天到晚|三天两头|一年四季|一年到头|三年五载|十年如一日"
)
POWER = "(?:[百万]|千(?!克))"
NUMERAL = re.compile(
    rf"(?P<protected>{PROTECTED})"
    rf"|(?<![{ONES}几十百千万亿零〇数某])"
    rf"(?:(?P<low>[{ONES}])(?P<high>[{ONES}])(?P<tens>十?)"
    rf"|(?P<number>[{ONES}](?:{POWER}(?:[{ONES}零〇十]|{POWER})*)?(?:十[{ONES}]?)?|十[{ONES}]?))"
    rf"(?P<about>[多来]?)(?P<unit>{COUNTED})"
)
ONE_PIECE = re.compile(r"[服吃用次日天每含嚼共剂A-Za-z]")
"""What stands before "one piece" when it counts tablets; elsewhere it means an expanse."""

WORD_UNITS = {
    "毫米汞柱": "mmHg",
    "毫摩尔/升": "mmol/L",
    "毫摩尔每升": "mmol/L",
    "毫克": "mg",
    "微克": "μg",
    "毫升": "ml",
    "公斤": "kg",
    "千克": "kg",
    "厘米": "cm",
    "公分": "cm",
    "毫米": "mm",
    "摄氏度": "℃",
    "°C": "℃",
    "国际单位": "IU",
}
WORD_UNIT = re.compile("|".join(sorted(map(re.escape, WORD_UNITS), key=len, reverse=True)))
LETTER_UNITS = {
    "mg": "mg",
    "ug": "μg",
    "μg": "μg",
    "mcg": "μg",
    "ml": "ml",
    "kg": "kg",
    "cm": "cm",
    "mm": "mm",
    "mmhg": "mmHg",
    "mmol/l": "mmol/L",
    "iu": "IU",
}
LETTER_UNIT = re.compile(
    r"(?<=[\d/])\s*(mmol/l|mmhg|mcg|mg|ug|μg|ml|kg|cm|mm|iu)(?![A-Za-z])", re.IGNORECASE
)
GRAM = re.compile(r"(?<=\d)\s*克(?![拉霉氏隆伦林罗])")
LITRE = re.compile(r"(?<=\d)\s*升(?![高压至到降])")
SPACE_BEFORE_UNIT = re.compile(r"(?<=\d)\s+(?=(?:℃|%|mmHg|mg|μg|ml|kg|cm|mm|IU|mmol/L))")


class NormalizeZh(FilterConfig):
    """Chinese free text in one form; a record's group is made anew from it.

    Not for code, mathematics or Markdown: their signs and line breaks go.
    """

    kind: Literal["normalize_zh"] = "normalize_zh"

    @override
    def applies_to(self, source: Source) -> bool:
        return source.free_text

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        for record in records:
            free_text = self.applies_to(context.sources[record.source])
            yield clean_record(record) if free_text else record


def clean_record(record: Record) -> Record:
    """The record with every text in its one form, and its group made anew from them."""
    history = tuple(clean(text) for text in record.history)
    question = clean(record.question)
    return dataclasses.replace(
        record,
        question=question,
        answer=clean(record.answer),
        history=history,
        rejected=clean(record.rejected) if record.rejected else "",
        group=record.group if record.images else normalise(history[0] if history else question),
    )


def clean(text: str) -> str:
    """The text in its one form; cleaning it again changes nothing."""
    for _ in range(MAX_PASSES):
        cleaned = _clean_once(text)
        if cleaned == text:
            break
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    while "&" in text and (plain := html.unescape(text)) != text:
        text = plain
    if "<" in text:
        text = TAG.sub("", COMMENT.sub("", text))
    text = LINK.sub("", text)
    text = SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
    text = "".join(map(_one_form, text))
    text = SPACES.sub(" ", text)
    text = text.replace("(", "（").replace(")", "）")
    text = NARROW_AFTER_CJK.sub(lambda match: NARROW_TO_WIDE[match[0]], text)
    text = _clean_units(NUMERAL.sub(_to_digits, text))
    text = DOTS.sub("…", text)
    text = STRAY_STARS.sub("", text)
    text = MIXED_END.sub(lambda match: "？" if set(match[0]) & {"？", "?"} else "！", text)
    text = REPEATED.sub(r"\1", text)
    text = AFTER_STRONG.sub("", WEAK_BEFORE_STRONG.sub("", text))
    text = SPACE_BY_CJK.sub("", EMPTY_BRACKETS.sub("", text))
    return LEADING.sub("", text).strip()


@lru_cache(maxsize=65536)
def _one_form(char: str) -> str:
    """A character in compatibility form; '' when it is a stray symbol."""
    if char in KEPT_WIDE or char in KEPT_SYMBOLS:
        return char
    normal = unicodedata.normalize("NFKC", char)
    return "".join(item for item in normal if not _is_stray(item))


def _is_stray(char: str) -> bool:
    if char in KEPT_SYMBOLS or char in "\t\n\r":
        return False
    return char in STRAY or unicodedata.category(char) in {
        "So",
        "Sk",
        "Cc",
        "Cf",
        "Co",
        "Cs",
        "Cn",
        "Mn",
        "Me",
    }


def _clean_units(text: str) -> str:
    text = WORD_UNIT.sub(lambda match: WORD_UNITS[match[0]], text)
    text = LETTER_UNIT.sub(lambda match: LETTER_UNITS[match[1].lower()], text)
    text = LITRE.sub("L", GRAM.sub("g", text))
    return SPACE_BEFORE_UNIT.sub("", text)


def _to_digits(match: re.Match[str]) -> str:
    if match["protected"]:
        return match[0]
    unit = match["about"] + match["unit"]
    if match["low"]:
        low, high = DIGITS[match["low"]], DIGITS[match["high"]]
        if not low < high <= low + 2:
            return match[0]
        factor = 10 if match["tens"] else 1
        return f"{low * factor}-{high * factor}{unit}"
    before = match.string[match.start() - 1 : match.start()]
    if match["number"] == "一" and unit == "片" and not ONE_PIECE.fullmatch(before):
        return match[0]
    return f"{to_number(match['number'])}{unit}"


def to_number(numeral: str) -> int:
    """The value of a Chinese numeral below a hundred million."""
    total, section, digit = 0, 0, 0
    for char in numeral:
        if char in DIGITS:
            digit = DIGITS[char]
        elif char == "万":
            total, section, digit = (total + section + digit) * 10000, 0, 0
        else:
            section, digit = section + (digit or 1) * POWERS[char], 0
    return total + section + digit
