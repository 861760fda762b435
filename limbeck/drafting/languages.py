"""Which language a text is in, as far as its script tells.

Left out: languages of one script apart from each other. All that is written in Latin letters is
`latin`, since nothing here depends on more.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable

LEAST_CJK_RATIO = 0.2
"""Of the letters: Chinese with many Latin names and units is still Chinese."""
NAMES = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "LATIN": "latin",
    "CYRILLIC": "cyrillic",
    "ARABIC": "arabic",
    "DEVANAGARI": "devanagari",
    "GREEK": "greek",
    "HEBREW": "hebrew",
    "THAI": "thai",
}
"""First words of the names of letters (Unicode character database) to what they are called here."""
OTHER = "other"


def find_language(text: str) -> str:
    """`zh`, `ja`, `ko`, or the script of most letters; `other` where there is none known."""
    scripts = Counter(
        NAMES.get(unicodedata.name(char, "").split(" ", 1)[0].split("-", 1)[0], OTHER)
        for char in text
        if char.isalpha()
    )
    if not scripts:
        return OTHER
    # Japanese and Korean texts hold Chinese characters too, never the other way round.
    for name in ("ja", "ko", "zh"):
        if scripts[name] >= LEAST_CJK_RATIO * scripts.total():
            return name
    return scripts.most_common(1)[0][0]


def count_languages(texts: Iterable[str]) -> Counter[str]:
    """How many of the texts are in each language."""
    return Counter(map(find_language, texts))
