"""Numbers and units in an answer, compared as quantities: 2.5 mg is not 25 mg, and 500 mg is 0.5 g.

Values and factors are exact fractions. Numbers in words, dates, times and codes stay text, and so
does a unit that is not in the table. Left out: conversions that are not exact, or hang on a
substance (mmol/L to mg/dL), and between scales with another zero (degrees).
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from limbeck.contracts.leaks import FINE_SPACE, HAN, MINUS, normalise, to_compatible

COMMA_LANGUAGES = frozenset(
    (
        *("bg", "bs", "ca", "cs", "da", "de", "el", "es", "et", "eu", "fi", "fr", "gl", "hr"),
        *("hu", "id", "is", "it", "lt", "lv", "mk", "nb", "nl", "nn", "no", "pl", "pt", "ro"),
        *("ru", "sk", "sl", "sq", "sr", "sv", "tr", "uk", "vi"),
    )
)
"""Languages (ISO 639-1) in which a comma is the decimal mark."""
MAX_EXPONENT = 400
MAX_DIGITS = 100
"""A number with more is text: a model that repeats itself writes thousands."""

UnitScale = tuple[str, Fraction]


def _table(*rows: str) -> dict[str, UnitScale]:
    """Each name with its base unit and its factor, from rows of `base: name=factor name=factor`."""
    found = {}
    for row in rows:
        base, _, names = row.partition(": ")
        for item in names.split():
            name, _, factor = item.partition("=")
            found[name.replace("_", " ")] = (base, Fraction(factor or 1))
    return found


UNITS = _table(
    "g: ng=1/1000000000 纳克=1/1000000000 μg=1/1000000 ug=1/1000000 mcg=1/1000000 微克=1/1000000"
    " microgram=1/1000000 micrograms=1/1000000 mg=1/1000 毫克=1/1000 milligram=1/1000"
    " milligrams=1/1000 g 克 gram grams kg=1000 千克=1000 公斤=1000 kilogram=1000 kilograms=1000"
    " 斤=500 吨=1000000",
    "l: μl=1/1000000 ul=1/1000000 μL=1/1000000 uL=1/1000000 微升=1/1000000 ml=1/1000 mL=1/1000"
    " cc=1/1000 cm3=1/1000 毫升=1/1000 立方厘米=1/1000 millilitre=1/1000 millilitres=1/1000"
    " milliliter=1/1000 milliliters=1/1000 dl=1/10 dL=1/10 分升=1/10 l L 升 litre litres liter"
    " liters",
    "m: nm=1/1000000000 纳米=1/1000000000 μm=1/1000000 um=1/1000000 微米=1/1000000 mm=1/1000"
    " 毫米=1/1000 cm=1/100 厘米=1/100 公分=1/100 dm=1/10 分米=1/10 m 米 metre metres meter meters"
    " km=1000 千米=1000 公里=1000",
    "m2: mm2=1/1000000 平方毫米=1/1000000 cm2=1/10000 平方厘米=1/10000 m2 平方米 km2=1000000"
    " 平方公里=1000000",
    "s: ms=1/1000 毫秒=1/1000 s 秒 秒钟 sec second seconds min=60 分钟=60 minute=60 minutes=60"
    " h=3600 hr=3600 hour=3600 hours=3600 小时=3600 个小时=3600 d=86400 天=86400 day=86400"
    " days=86400 周=604800 星期=604800 个星期=604800 week=604800 weeks=604800",
    "month: 个月 month months",
    "mol: pmol=1/1000000000000 nmol=1/1000000000 纳摩尔=1/1000000000 μmol=1/1000000"
    " umol=1/1000000 微摩尔=1/1000000 mmol=1/1000 毫摩尔=1/1000 mol 摩尔",
    "mol/l: nM=1/1000000000 μM=1/1000000 uM=1/1000000 mM=1/1000",
    "Pa: mPa=1/1000 Pa 帕 kPa=1000 千帕=1000 MPa=1000000 兆帕=1000000",
    "J: mJ=1/1000 J 焦耳 kJ=1000 千焦=1000 MJ=1000000",
    "cal: cal 卡路里 kcal=1000 千卡=1000 大卡=1000",
    "W: mW=1/1000 W 瓦 kW=1000 千瓦=1000 MW=1000000 兆瓦=1000000",
    "V: mV=1/1000 毫伏=1/1000 V 伏 kV=1000 千伏=1000",
    "Hz: mHz=1/1000 Hz 赫兹 kHz=1000 千赫=1000 MHz=1000000 兆赫=1000000 GHz=1000000000",
    "eV: eV keV=1000 MeV=1000000",
    "°C: °C °_C 摄氏度",
    "°F: °F °_F 华氏度",
    "°: °",
    "′: ′",
    "″: ′′",
    "mmHg: mmHg 毫米汞柱",
    "IU: IU 国际单位",
    "%: % percent per_cent ‰=1/10",
    "kB: kB",
    "KB: KB",
    "MB: MB",
    "Mb: Mb",
    "GB: GB",
    "Gb: Gb",
    "TB: TB",
)
"""Names in Latin letters and in Chinese; what bears the same base differs by an exact factor."""
LOWER = {
    name.lower(): scale
    for name, scale in UNITS.items()
    if len(name) > 1 and len({UNITS[item] for item in UNITS if item.lower() == name.lower()}) == 1
}
"""Names whose case tells nothing: MG and mg, yet not MW and mW."""

ENDS = ("low", "high")
_LATIN = sorted((name for name in UNITS if name.isascii() or name[0] in "μ°‰"), key=len)[::-1]
_HAN = sorted(set(UNITS) - set(_LATIN), key=len)[::-1]
_UNIT = (
    rf"(?:(?:{'|'.join(map(re.escape, _HAN))})"
    rf"|(?i:{'|'.join(map(re.escape, _LATIN))})(?![A-Za-z\d^]))"
)
_UNITS = rf"(?:\s*\\?{_UNIT}(?:\s*(?:/|每|\bper\b)\s*{_UNIT})*|\s*/\s*{_UNIT})"
_EXPONENT = r"\^\s*\{?([+-]?\d{1,3})\}?(?!\d)"
_NUMBER = {
    "point": r"(?:(?!0)\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+",
    "comma": r"(?:(?!0)\d{1,3}(?:[. ]\d{3})+(?!\d)|\d+)(?:[,.]\d+)?|,\d+",
}
_CODE = r"\d+(?::\d+)+|\d+(?:-\d+){2,}|\d+(?:/\d+){2,}|0\d+(?:[.:/-]\d+)*"
_CODES = {
    "point": rf"\d+(?:\.\d+){{2,}}|{_CODE}",
    "comma": rf"(?!\d{{1,3}}(?:\.\d{{3}})+(?!\d))\d+(?:\.\d+){{2,}}|{_CODE}",
}


@functools.cache  # takes a tenth of a second to compile
def _pattern(mark: str) -> re.Pattern[str]:
    """What finds codes, ranges and quantities where a point or a comma is the decimal mark."""

    def value(name: str) -> str:
        return (
            rf"(?P<{name}_power>10\s*{_EXPONENT.replace('(', f'(?P<{name}_of>', 1)})"
            rf"|(?P<{name}>{_NUMBER[mark]})"
            rf"(?:\s*[×x*]\s*10\s*{_EXPONENT.replace('(', f'(?P<{name}_times>', 1)}"
            rf"|[eE](?P<{name}_e>[+-]?\d{{1,3}})(?![\w]))?"
        )

    start = rf"(?<![^\W_\u3040-\u30ff{HAN}])(?<!\d\.)"
    sign = rf"(?:(?:(?<!\w)|(?<=[{HAN}]))[+-])?"
    link = r"\s*(?:~+|(?P<dashes>-+)|[至到]|\bto\b)\s*"
    return re.compile(
        rf"{start}(?:(?P<code>{_CODES[mark]})"
        rf"|(?P<sign>{sign})(?:{value('low')})(?P<unit>{_UNITS})?"
        rf"(?:{link}(?P<high_sign>-?)(?:{value('high')})(?P<high_unit>{_UNITS})?)?)"
    )


ADDRESS = re.compile(
    r"(?<![A-Za-z0-9])(?:[a-z][a-z0-9+.-]*://[!#-&*-;=?-Z_a-z~]+"  # none of "'()<>[]
    r"|[A-Za-z0-9][A-Za-z0-9_.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
    r"|[A-Za-z][A-Za-z0-9]*[A-Za-z0-9](?:_[A-Za-z][A-Za-z0-9]*)+)"
)
"""An address of the web or of mail, a name such as `first_dose`: in these a mark is a letter."""
DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013" + MINUS, "-") | {"\u301c": "~"})
COMPARISONS = str.maketrans("≧⩾≦⩽", "≥≥≤≤")
RING = re.compile(r"(?<=\d)(\s?)[\u00ba\u02da](?=\s?[CF]\b)")
"""An ordinal sign or a ring, which keyboards give for the sign of degrees."""

METRES = re.compile(r"(?<![A-Za-z])([cdkm]?m)\^\{?([23])\}?(?!\d)")
"""Square and cubic ones, as LaTeX and plain text write them."""
MULTIPLIED = re.compile(r"(?<=\d)(?<!\b0)\s*[x*]\s*(?=\d)")
"""2x500 mg; not 0x50, which is a code."""


@dataclass(frozen=True)
class Quantity:
    """A number or a range of numbers, in its base unit; '' without one."""

    low: Fraction
    high: Fraction
    unit: str = ""

    def __str__(self) -> str:
        """In brackets, which no normalised text holds."""
        span = str(self.low) if self.low == self.high else f"{self.low}..{self.high}"
        return f"[{span} {self.unit}]"


def split_quantities(text: str, *, language: str = "") -> list[str | Quantity]:
    """The quantities of a text and the texts between them, in order.

    `language` says which mark is the decimal one; without it, the point is.
    """
    mark = "comma" if language in COMMA_LANGUAGES else "point"
    text = text.replace("，", "、").replace("\\times", "×").replace("\\,", "\u2009")
    text = METRES.sub(r"\1\2", FINE_SPACE.sub("", text))
    text = RING.sub(r"\1°", text)
    text = to_compatible(text).translate(DASHES).translate(COMPARISONS)
    text = MULTIPLIED.sub("×", text.replace(">=", "≥").replace("<=", "≤"))
    parts: list[str | Quantity] = []
    end = 0
    for found in _pattern(mark).finditer(text):
        if found["code"]:
            continue
        quantities = list(_read(found, mark=mark))
        if not quantities:
            continue
        parts += [text[end : found.start()], *quantities]
        end = found.end()
    return [part for part in (*parts, text[end:]) if part]


def answer_key(text: str, *, language: str = "") -> str:
    """What two answers share when they say the same: normalised text, quantities in base units.

    Addresses and names of code stay as they are written, whatever their case.
    """
    keys, end = [], 0
    for found in ADDRESS.finditer(text):
        address = found[0].rstrip(".,;:!?/")
        keys += [_key(text[end : found.start()], language=language), f" {address.casefold()} "]
        end = found.end()
    return "".join([*keys, _key(text[end:], language=language)]).strip()


def _key(text: str, *, language: str) -> str:
    parts = split_quantities(text, language=language)
    keys = []
    for place, part in enumerate(parts):
        if isinstance(part, Quantity):
            keys.append(str(part))
            continue
        around = (*parts[max(0, place - 1) : place], *parts[place + 1 : place + 2])
        between = len(around) == 2 and all(isinstance(item, Quantity) for item in around)
        marks = "".join(char for char in part if char in "/:*") if between else ""
        # A hyphen before a number that it is no sign of joins them: COVID-19.
        text = part.rstrip("-") if place + 1 < len(parts) else part
        keys.append(normalise(text) or marks)
    return "".join(keys)


def _read(found: re.Match[str], *, mark: str) -> Iterator[Quantity | str]:
    """One quantity; two with what is between them where they make no range; none for a version."""
    if _is_endless(found):
        return
    low = _value(found, "low", sign=found["sign"], mark=mark)
    low_unit, factor = _read_units(found["unit"])
    has_high = found["high"] is not None or found["high_power"] is not None
    if not has_high:
        if not found["unit"] and _is_version(found):
            return
        yield Quantity(low * factor, low * factor, low_unit)
        return
    # Two hyphens are a dash, but after a negative number a dash and a sign.
    high_sign = "-" if (found["sign"], found["dashes"]) == ("-", "--") else found["high_sign"]
    high = _value(found, "high", sign=high_sign, mark=mark)
    high_unit, high_factor = _read_units(found["high_unit"])
    if found["unit"] is None:
        low_unit, factor = high_unit, high_factor
    if low_unit == high_unit:
        yield Quantity(low * factor, high * high_factor, low_unit)
        return
    yield Quantity(low * factor, low * factor, low_unit)
    yield "~"
    yield Quantity(high * high_factor, high * high_factor, high_unit)


def _is_version(found: re.Match[str]) -> bool:
    """Whether a number without a unit follows a Latin word and ends in a zero that counts: 3.10."""
    whole, _, decimals = (found["low"] or "").partition(".")
    counts = bool(whole) and decimals.endswith("0") and decimals.strip("0") != ""
    return counts and re.search(r"[A-Za-z]\s*$", found.string[: found.start()]) is not None


def _value(found: re.Match[str], name: str, *, sign: str, mark: str) -> Fraction:
    if found[f"{name}_power"]:
        value = Fraction(10) ** int(found[f"{name}_of"])
    else:
        digits = found[name].replace(" ", "")
        if mark == "point":
            digits = digits.replace(",", "")
        elif "," in digits or re.fullmatch(r"(?!0)\d{1,3}(?:\.\d{3})+", digits):
            digits = digits.replace(".", "").replace(",", ".")
        exponent = found[f"{name}_times"] or found[f"{name}_e"] or "0"
        value = Fraction(f"0{digits}") * Fraction(10) ** int(exponent)
    return -value if sign == "-" else value


def _is_endless(found: re.Match[str]) -> bool:
    """Whether a number is too long to be one that somebody means."""
    exponents = [found[f"{name}_{way}"] for name in ENDS for way in ("of", "times", "e")]
    return any(len(found[name] or "") > MAX_DIGITS for name in ENDS) or any(
        abs(int(item)) > MAX_EXPONENT for item in exponents if item
    )


def _read_units(text: str | None) -> tuple[str, Fraction]:
    """The base unit and the factor of what stands after a number."""
    if not text:
        return "", Fraction(1)
    names = re.split(r"\s*(?:/|每|\bper\b(?!\s*cent))\s*", text.strip().lstrip("\\"))
    bases, factor = [], Fraction(1)
    for place, name in enumerate(names):
        base, scale = _find(name.strip()) if name else ("1", Fraction(1))
        bases.append(base)
        factor = factor * scale if place == 0 else factor / scale
    return "/".join(bases), factor


def _find(name: str) -> UnitScale:
    if name in UNITS:
        return UNITS[name]
    # A case of its own, such as 5G or mw: what it stands for is open, so it equals only itself.
    return LOWER.get(name.lower(), (f"?{name.lower()}", Fraction(1)))
