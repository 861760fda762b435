"""How well bytes read as one language's letters, in each encoding of one byte a character.

In most of those encodings a byte beyond ASCII is a letter, so that it can be decoded tells little.
What tells is whether one language has all these letters, and whether capitals, small letters and
signs stand where they do in texts. Left out: Semitic scripts, Thai and Vietnamese, whose
encodings the detectors tell apart.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

LATIN = (
    *("cp1252", "cp1250", "iso8859-2", "iso8859-15", "cp1254", "cp1257"),
    *("mac-roman", "cp850", "cp437", "cp852", "mac-latin2", "mac-croatian", "mac-romanian"),
    *("mac-turkish", "mac-iceland", "cp857", "cp775", "cp858", "cp865"),
    *("iso8859-13", "iso8859-4", "iso8859-16", "iso8859-10"),
)
CYRILLIC = ("cp1251", "koi8-r", "koi8-u", "cp866", "iso8859-5", "mac-cyrillic")
GREEK = ("cp1253", "iso8859-7", "mac-greek", "cp737")
SINGLE_BYTE = (*LATIN, *CYRILLIC, *GREEK)
"""The likelier first. Besides Windows' and ISO's they are those of a Macintosh and of MS-DOS."""
RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
ALPHABETS = tuple(
    frozenset(letters + letters.upper())
    for letters in (
        *("àâæçèéêëîïôœùûü", "äöüß", "áéíñóúüªº", "àáâãçéêíóôõúüªº", "àèéìíîòóù", "àéèíòóúüçï·"),
        *("åäöé", "æøåéóòôê", "áéèêëíîïóôöúûü", "áéíúýþæöðó", "ąćęłńóśźż", "áčďéěíňóřšťúůýž"),
        *("áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "ăâîşţșț", "çğıöşüâîİ", "ąčęėįšųūž"),
        *("āčēģīķļņšūž", "äöõüšž", f"{RUSSIAN}ё", f"{RUSSIAN}ґєії", f"{RUSSIAN}ђјљњћџѓќѕѝ"),
        "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",
    )
)
"""Letters beyond ASCII of the languages written in those, one language each."""
LAST_LATIN = "\u024f"
VOWELS = "оаеиОАЕИ"
"""Four of ten letters of a text in Russian, Ukrainian or Bulgarian are one of these."""
HEBREW = ("cp1255", "iso8859-8")
INSIDE_WORD = re.compile("[ךםןףץ](?=[א-ת])")
"""A letter of Hebrew that only ends words, where it does not."""
LEAST_INSIDE_RATIO = 0.02
"""Of all letters, from which on such letters are no slips."""
WINDOW = re.compile(rb"(?=(.[\x80-\xff].))", re.DOTALL)
MOST_WINDOWS = 4000
BLANKS = "\u00a0\u00ad"
"""What may stand between letters as well, though seldom: there it counts half."""
LOOSE = "“”„‚‘«»‹›€£¥¢§°¶№‰"
LONE_CAPITAL = 0.8
"""What a capital by itself counts: words of one letter are mostly small."""


class Place(NamedTuple):
    """What stands before and after a character."""

    before: str
    after: str


SIGNS: Mapping[str, Callable[[Place], bool]] = {
    **dict.fromkeys("’·–—", lambda place: True),
    **dict.fromkeys(LOOSE, lambda place: not (place.before.isalpha() and place.after.isalpha())),
    **dict.fromkeys("„‚", lambda place: not place.before.isalnum() and place.after.isascii()),
    **dict.fromkeys("•…", lambda place: not place.after.isalpha()),
    **dict.fromkeys("¡¿", lambda place: not place.before.isalnum() and not place.after.isspace()),
    **dict.fromkeys("®™²³¹", lambda place: place.before.isalnum() and not place.after.isalpha()),
    **dict.fromkeys("½¼¾±×÷µ©", lambda place: not place.before.isalpha()),
}
"""Signs that texts hold, and where."""


def fit_ratios(sample: bytes) -> dict[str, float]:
    """By encoding, the share of the characters beyond ASCII that are in place: letters that one
    language has, the language that has most of them, and signs.
    """
    found = Counter(match[1] for match in WINDOW.finditer(b" " + sample + b" "))
    windows = found.most_common(MOST_WINDOWS)
    return {name: _fit_ratio(windows, table=_decode_table(name)) for name in SINGLE_BYTE}


def is_hebrew(sample: bytes, *, name: str) -> bool:
    """Whether a sample that one of Hebrew's encodings decodes has its last letters at words' ends.

    Capitals of KOI8 stand for the same bytes.
    """
    text = sample.decode(name, errors="replace")
    num_letters = sum(map(str.isalpha, text))
    return len(INSIDE_WORD.findall(text)) < LEAST_INSIDE_RATIO * max(1, num_letters)


def vowel_ratio(sample: bytes, *, name: str) -> float:
    """Share of the characters beyond ASCII that are vowels of Cyrillic.

    KOI8's capitals are small letters of Windows' encoding, and the reverse: only how often each
    letter stands tells the two apart.
    """
    text = [char for char in sample.decode(name, errors="replace") if not char.isascii()]
    return sum(char in VOWELS for char in text) / max(1, len(text))


@cache
def _decode_table(name: str) -> str:
    return bytes(range(256)).decode(name, errors="replace")


def _fit_ratio(windows: list[tuple[bytes, int]], *, table: str) -> float:
    letters: defaultdict[str, float] = defaultdict(float)
    num_chars = num_signs = 0.0
    for window, count in windows:
        before, char, after = (table[byte] for byte in window)
        num_chars += count
        if char in BLANKS:
            num_signs += count * (0.5 if before.isalpha() and after.isalpha() else 1)
        elif char in SIGNS:
            num_signs += count * SIGNS[char](Place(before, after))
        elif char.isalpha():
            letters[char] += count * _weigh_letter(char, Place(before, after))
    most = max(sum(letters[char] for char in alphabet) for alphabet in ALPHABETS)
    return (most + num_signs) / max(1, num_chars)


def _weigh_letter(char: str, place: Place) -> float:
    """1 where a letter stands as texts have it, 0 where none has it so."""
    beside = [other for other in place if other.isalpha()]
    if char > LAST_LATIN and any(map(str.isascii, beside)):
        return 0.0
    if char.isupper() and not beside:
        return LONE_CAPITAL
    return float(not (place.before.islower() if char.isupper() else place.after.isupper()))
