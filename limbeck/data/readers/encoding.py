"""Which encoding a text file is in, detected from the whole file and never from a cut character.

UTF-8 and UTF-16 prove themselves. The others are distinguished by how likely the letters are that
their bytes would stand for, and a second detector shows where the first may be wrong. Left out:
what a file's lines mean.
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import chardet
import chardetng_py

from limbeck.contracts.errors import DataError
from limbeck.data.readers.alphabets import (
    CYRILLIC,
    HEBREW,
    LATIN,
    SINGLE_BYTE,
    fit_ratios,
    is_hebrew,
    vowel_ratio,
)
from limbeck.data.readers.signatures import check_signature

CHUNK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
MOST_DAMAGE_RATIO = 0.02
"""Undecodable share of the non-ASCII text up to which an encoding still counts as the file's."""
MOST_UTF8_DAMAGE_RATIO = 0.5
"""The same for UTF-8: text in another encoding is hardly ever valid there by chance."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SUPERSETS = {
    "gb2312": ("gb18030",),
    "gbk": ("gb18030",),
    "hz": ("gb18030",),
    "ascii": ("utf-8",),
    "iso8859-1": ("cp1252",),
    "iso8859-9": ("cp1254",),
    "shift_jis": ("cp932", "shift_jis_2004"),
    "euc_kr": ("cp949",),
    "big5": ("big5", "cp950", "big5hkscs"),
}
"""What to read an encoding as: one that holds all its characters, the first that fits best."""
UNMARKED = ("utf-16-le", "utf-16-be")
ESCAPE = b"\x1b$"
"""Begins Japanese text in ISO-2022-JP, all bytes of which are ASCII."""
TEXT_CONTROLS = frozenset("\t\r\n\f\ufeff\u200b\u200c\u200d\u200e\u200f\u00ad")
"""Characters of Unicode's class "other" that texts do hold."""
WESTERN = "cp1252"
SURE_RATIO = 0.9
"""Share of the characters in place from which one encoding is believed."""
MOST_ALIKE_CHARS = 3
"""So many characters better in place, one encoding is no surer than another."""
ALIKE_RATIO = 0.01
"""Share of the characters by which two encodings of Cyrillic may differ and be told by vowels."""
CURRENCY = "\u00a4"
"""Hardly ever meant: in iso8859-15 its byte is the sign of the euro."""
MARK_DAMAGE = "limbeck.mark_damage"
DAMAGE = "\udcff"
"""Stands for bytes without a meaning; no text that can be decoded holds it."""
ALONE = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?![\x80-\xff])")
FEW_CHARS = 16
"""Characters beyond ASCII below which no statistics of letters can be trusted."""


@dataclass(frozen=True)
class Encoding:
    """A file's encoding by its name in Python, and why it may be another one."""

    name: str
    doubt: str = ""
    """Empty where there is none."""


def detect_encoding(path: Path) -> Encoding:
    """A file's encoding.

    Raises:
        DataError: the file cannot be read, or is no text in any known encoding.
    """
    sample = _read_sample(path)
    for mark, name in MARKS.items():
        if sample.startswith(mark):
            return Encoding(name)
    check_signature(sample, path=path)
    if b"\0" in sample and not _is_damaged_utf8(sample):
        return Encoding(_unmarked_utf16(sample, path=path))
    if ESCAPE not in sample and _damage_ratio(path, encoding="utf-8") <= MOST_UTF8_DAMAGE_RATIO:
        return Encoding("utf-8")
    sample = _non_ascii_lines(path) or sample
    first, second = _guess(path, sample=sample)
    for guess in dict.fromkeys((first, second, "gb18030")):
        names = SUPERSETS.get(guess, (guess,))
        ratios = {name: _damage_ratio(path, encoding=name) for name in names}
        best = min(ratios, key=lambda name: ratios[name])
        if ratios[best] <= MOST_DAMAGE_RATIO:
            return Encoding(best, _doubt(best, other=second, sample=sample))
    raise DataError(
        "is text in no known encoding; set `encoding`, or write it again in UTF-8", path=path
    )


def check_encoding(name: str) -> str:
    """The name, where Python has a text encoding of this name, or where it is ''.

    Raises:
        ValueError: it has none.
    """
    try:
        "".encode(name or "utf-8")
    except LookupError:
        raise ValueError(f"no text encoding {name!r}; some are utf-8, cp1252, gb18030") from None
    return name


def _read_sample(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SAMPLE_BYTES)


def _is_damaged_utf8(sample: bytes) -> bool:
    """Whether a sample is UTF-8 but for a few zero bytes, which cost their lines alone."""
    if sample.count(b"\0") > MOST_DAMAGE_RATIO * len(sample):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return _strange_ratio(sample, encoding="utf-8") <= MOST_DAMAGE_RATIO


def _unmarked_utf16(sample: bytes, *, path: Path) -> str:
    """UTF-16 without a mark, in the byte order in which the sample is text."""
    ratios = {name: _strange_ratio(sample, encoding=name) for name in UNMARKED}
    best = min(ratios, key=lambda name: ratios[name])
    # Zero bytes are halves of ASCII characters, such as line ends.
    has_ascii = any("\t" <= char <= "~" for char in sample.decode(best, errors="replace"))
    if ratios[best] > MOST_DAMAGE_RATIO or not has_ascii:
        raise DataError(
            "holds zero bytes, so it is not a text file; save it as text, or set `encoding`",
            path=path,
            line=sample.count(b"\n", 0, sample.index(b"\0")) + 1,
        )
    return best


def _strange_ratio(sample: bytes, *, encoding: str) -> float:
    """Share of the characters that no text holds: unassigned, private, broken, controls."""
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(sample)
    strange = (
        char == "\ufffd" or (unicodedata.category(char)[0] == "C" and char not in TEXT_CONTROLS)
        for char in text
    )
    return sum(strange) / max(1, len(text))


def _guess(path: Path, *, sample: bytes) -> tuple[str, str]:
    """What the file is taken for, and what it may be instead."""
    detector = chardetng_py.EncodingDetector()
    for chunk in _chunks(path):
        detector.feed(chunk, last=False)
    detector.feed(b"", last=True)
    first = _python_name(detector.guess(tld=None, allow_utf8=False))
    second = _python_name(chardet.detect(sample)["encoding"] or "utf-8")
    is_believed = first not in HEBREW or is_hebrew(sample, name=first)
    if first not in SINGLE_BYTE and is_believed and not _is_scattered(sample):
        return first, second
    ratios = fit_ratios(sample)
    # Where one letter alone tells, the second detector knows which is frequent.
    best = max(ratios, key=lambda name: (ratios[name], name == second and name in LATIN))
    if first not in SINGLE_BYTE and ratios[best] < SURE_RATIO:
        return first, second
    num_beyond = sum(byte > 127 for byte in sample)
    if (ratios[best] - ratios.get(first, 0)) * num_beyond < 1:
        # Of a short text several may be right; Western is what most of them are.
        is_western = second == WESTERN and num_beyond < FEW_CHARS
        best = WESTERN if is_western and ratios[WESTERN] == ratios[best] else first
    if best in CYRILLIC:
        least = ratios[best] - max(ALIKE_RATIO, 1 / num_beyond)
        alike = [name for name in CYRILLIC if ratios[name] > least]
        best = max((best, *alike), key=lambda name: vowel_ratio(sample, name=name))
    return best, _other(best, ratios=ratios, sample=sample)


def _other(best: str, *, ratios: Mapping[str, float], sample: bytes) -> str:
    """The likeliest encoding that may be meant instead; the best one where none may be."""
    text = sample.decode(best, errors="replace")
    num_beyond = sum(not char.isascii() for char in text)
    least = ratios[best] - MOST_ALIKE_CHARS / max(1, num_beyond)
    least = 0 if ratios[best] < SURE_RATIO else least
    for name in sorted(ratios, key=lambda name: -ratios[name]):
        if ratios[name] > least and sample.decode(name, errors="replace") != text:
            return name
    return best


def _is_scattered(sample: bytes) -> bool:
    """Whether most bytes beyond ASCII stand by themselves, as in Latin text."""
    return 2 * len(ALONE.findall(sample)) > sum(byte > 127 for byte in sample)


def _python_name(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "utf-8"


def _non_ascii_lines(path: Path) -> bytes:
    """The first lines that hold more than ASCII: line ends are never part of a character."""
    found, num_bytes = [], 0
    with path.open("rb") as file:
        while num_bytes < SAMPLE_BYTES and (line := file.readline(CHUNK_BYTES)):
            if not line.isascii():
                found.append(line)
                num_bytes += len(line)
    return b"".join(found)


def _doubt(name: str, *, other: str, sample: bytes) -> str:
    """Why statistics may have taken one encoding for another; '' where there is no reason."""
    text = sample.decode(name, errors="replace")
    advice = "look at the texts, and set `encoding` if they are wrong"
    other = SUPERSETS.get(other, (other,))[0]
    if text != sample.decode(other, errors="replace"):
        return f"may be {other}; {advice}"
    if name == WESTERN and CURRENCY in text:
        return f"may be iso8859-15; {advice}"
    num_beyond = sum(not char.isascii() for char in text)
    return f"only {num_beyond} characters tell it; {advice}" if num_beyond < FEW_CHARS else ""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _damage_ratio(path: Path, *, encoding: str) -> float:
    """Share of the characters beyond ASCII that the encoding cannot explain.

    A character that was lost before the file was written is none of them.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors=MARK_DAMAGE)
    beyond, damaged = 0, 0
    for chunk in itertools.chain(_chunks(path), (b"",)):
        text = decoder.decode(chunk, final=not chunk)
        beyond += len(text) - len(text.encode("ascii", errors="ignore"))
        damaged += text.count(DAMAGE)
    return damaged / max(1, beyond)


def _mark_damage(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return DAMAGE, error.end


codecs.register_error(MARK_DAMAGE, _mark_damage)
