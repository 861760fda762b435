"""One spelling of a text, for matching only: what people, phones and attackers write in many ways.

Widths, case, traditional characters, invisible and combining characters, letters spaced apart,
tokens of chat templates, common misspellings and pinyin. The result is never shown to anybody.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.leaks import HAN
from limbeck.contracts.safety_rules import Spelling

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
    "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff"
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
TEMPLATE_TOKEN = re.compile(r"<\|[^|<>]{0,40}\|>|</?s>|\[/?inst\]|<</?sys>>")
SEPARATOR = r"[\s,、。.·•*_~\-/|+]"
CJK_APART = re.compile(rf"(?<![{HAN}])[{HAN}](?:{SEPARATOR}{{1,3}}[{HAN}]){{2,}}(?![{HAN}])")
"""At least three single characters with something between each two of them."""
CJK_SPACE = re.compile(rf"(?<=[{HAN}])\s+(?=[{HAN}])")
LONE_CJK_SPACE = re.compile(
    rf"(?<![{HAN}])([{HAN}])\s+(?=[{HAN}])|(?<=[{HAN}])\s+([{HAN}])(?![{HAN}])"
)
LATIN_APART = re.compile(r"(?<![a-z0-9])[a-z](?:[ .*_\-][a-z]){3,}(?![a-z0-9])")
BREAK = re.compile(r"\s*\n\s*")
SPACES = re.compile(r"\s+")
LONG_LETTERS = re.compile(r"([a-z])\1{2,}")
DIGIT_IN_WORD = re.compile(r"(?<=[a-z])[01345](?=[a-z])")
WORD = re.compile(r"[a-z]+")
LOOKALIKES = str.maketrans("аеорсухіѕԁո", "aeopcyxisdn", "‘’'`´")
"""Cyrillic and Armenian letters that look Latin; apostrophes go."""
DIGITS = str.maketrans("01345", "oieas")
MIN_DELETION_CHARS = 6
"""Shorter words with a letter missing are too often other words."""


def _read_traditional() -> Mapping[int, int | None]:
    text = (Path(__file__).parent / "traditional.txt").read_text(encoding="utf-8")
    return {ord(pair[0]): ord(pair[1]) for pair in text.split()}


TO_SIMPLIFIED = _read_traditional()
"""From OpenCC's table of single characters (Apache-2.0), those whose simplified form is common."""


@dataclass(frozen=True)
class Speller:
    """Puts other spellings of known words right."""

    respelled: re.Pattern[str]
    right: Mapping[str, str]
    pinyin: re.Pattern[str]
    syllable: re.Pattern[str]
    characters: Mapping[str, str]
    words: Mapping[str, str]

    def correct(self, text: str) -> str:
        """A canonical text with its known words spelled right."""
        text = WORD.sub(lambda match: self.words.get(match[0], match[0]), text)
        text = self.respelled.sub(lambda match: self.right[match[0]], text)
        text, num_words = self.pinyin.subn(lambda match: self._to_characters(match[0]), text)
        if num_words:
            text = self.syllable.sub(lambda match: self._to_characters(match[0]), text)
            text = CJK_SPACE.sub("", text)
        return text

    def _to_characters(self, found: str) -> str:
        return self.characters[found.replace(" ", "")]


def make_speller(spelling: Spelling) -> Speller:
    """What corrects the spellings that a domain lists."""
    right = {wrong: word for word, wrongs in spelling.respell.items() for wrong in wrongs}
    words = {
        wrong: word
        for word in spelling.words
        for wrong in misspellings(word)
        if wrong not in spelling.words and wrong not in spelling.not_words
    }
    characters: dict[str, str] = {}
    many, single = [], []
    for word, pinyin in spelling.pinyin.items():
        characters.setdefault(pinyin.replace(" ", ""), word)
        (many if " " in pinyin else single).append(pinyin.replace(" ", " ?"))
    return Speller(
        re.compile(_alternation(map(re.escape, right))),
        right,
        re.compile(rf"(?<![a-z])(?:{_alternation(many)})(?![a-z])"),
        re.compile(rf"(?<![a-z])(?:{_alternation(single)})(?![a-z])"),
        characters,
        words,
    )


def _alternation(expressions: Iterable[str]) -> str:
    return "|".join(sorted(expressions, key=len, reverse=True)) or r"(?!)"


def misspellings(word: str) -> Iterator[str]:
    """A word with two neighbours swapped, a letter doubled, or (if it is long) a letter missing."""
    for place in range(len(word) - 1):
        yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        yield word[: place + 1] + word[place] + word[place + 1 :]
        if len(word) >= MIN_DELETION_CHARS and place:
            yield word[:place] + word[place + 1 :]


def views(text: str, speller: Speller) -> tuple[str, ...]:
    """A text in canonical spelling.

    A space between Chinese words may end a clause or stand inside a word: both readings come back.
    """
    text = INVISIBLE.sub("", unicodedata.normalize("NFKD", text).lower())
    text = text.translate(LOOKALIKES).translate(TO_SIMPLIFIED)
    text = TEMPLATE_TOKEN.sub("", text)
    text = CJK_APART.sub(lambda match: re.sub(SEPARATOR, "", match[0]), text)
    text = LATIN_APART.sub(lambda match: re.sub(r"[^a-z]", "", match[0]), text)
    text = LONG_LETTERS.sub(r"\1", text)
    text = DIGIT_IN_WORD.sub(lambda match: match[0].translate(DIGITS), text)
    text = LONE_CJK_SPACE.sub(lambda match: match[1] or match[2], text)
    joined = SPACES.sub(" ", CJK_SPACE.sub("", text))
    apart = SPACES.sub(" ", BREAK.sub("。", CJK_SPACE.sub(",", text)))
    return tuple(dict.fromkeys((speller.correct(apart), speller.correct(joined))))
