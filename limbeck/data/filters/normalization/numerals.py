"""Chinese numerals of counted things as digits, and units in one form."""

import re

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
    rf"|(?<![{ONES}几十百千万亿零〇数某\d])(?<!分之)(?<![{ONES}零十\d]点)"
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
OTHER_UNITS = frozenset({"mM", "Mg"})
"""Millimolar is not millimetres, nor is magnesium milligrams."""
LETTER_UNIT = re.compile(
    r"(?<=[\d/])(\s*)(mmol/l|mmhg|mcg|mg|ug|μg|ml|kg|cm|mm|iu)(?![A-Za-z])", re.IGNORECASE
)
GRAM = re.compile(r"(?<=\d)\s*克(?![拉霉氏隆伦林罗])")
LITRE = re.compile(r"(?<=\d)\s*升(?![高压至到降为上值温])")
SPACE_BEFORE_UNIT = re.compile(r"(?<=\d)\s+(?=(?:℃|%|mmHg|mg|μg|ml|kg|cm|mm|IU|mmol/L))")


def unify_units(text: str) -> str:
    """The text with every unit of measure in its usual letters, right after its number."""
    text = WORD_UNIT.sub(lambda match: WORD_UNITS[match[0]], text)
    text = LETTER_UNIT.sub(_unify_letters, text)
    text = LITRE.sub("L", GRAM.sub("g", text))
    return SPACE_BEFORE_UNIT.sub("", text)


def _unify_letters(match: re.Match[str]) -> str:
    return match[0] if match[2] in OTHER_UNITS else LETTER_UNITS[match[2].lower()]


def to_digits(text: str) -> str:
    """The text with the numerals of counted things in digits."""
    return NUMERAL.sub(_to_digits, text)


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
    """The value of a Chinese numeral below a hundred million.

    A last digit right after a hundred or more counts the next lower power.
    """
    total, section, digit, power = 0, 0, 0, 1
    for char in numeral:
        if char in DIGITS:
            digit = DIGITS[char]
            power = power if digit else 1
        elif char == "万":
            total, section, digit, power = (total + section + digit) * 10000, 0, 0, 10000
        else:
            section, digit, power = section + (digit or 1) * POWERS[char], 0, POWERS[char]
    return total + section + digit * (power // 10 if power >= 100 else 1)
