"""Text that was decoded wrongly before its file was written: counted and shown, never changed.

Such a file is valid in its encoding, so nothing else notices. Western and Cyrillic letters are
judged by ftfy; East Asian encodings, which ftfy leaves out, by whether the characters are the bytes
of other ones in UTF-8 or in GBK, which hardly any meant text is by chance.
"""

import logging
import re
from collections.abc import Iterable, Iterator

from limbeck.contracts.records import Note

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 3
SHOWN_CHARS = 24
"""Characters of an example around what is wrong."""
SURE = ("锟斤拷", "\u0393\u00c7")
"""Two lost characters in UTF-8 read as GBK, and a quotation mark or dash read as MS-DOS text."""
ENGLISH_IN_GBK = re.compile("[A-Za-z]\u9225|\u9225[A-Za-z]")
"""The apostrophes and dashes of English."""
EAST_ASIAN_ENCODINGS = ("gb18030", "cp932", "cp949", "big5")
EAST_ASIAN = re.compile(r"[\u00b7-\u00d7\u0370-\u04ff\u2010-\u2642\u2e80-\ud7ff\ue000-\uffef]{3,}")
"""Runs of characters that two or more bytes of those encodings stand for."""
MEANT = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e]")
FREQUENT_HANZI = range(0xB0, 0xD8)
PUNCTUATION = range(0xA1, 0xA4)
"""First bytes in GB 2312."""
SECOND_BYTES = range(0xA1, 0xFF)
LEADS, TRAILS = range(0xE3, 0xEA), range(0x80, 0xC0)
"""The first two bytes of most characters of East Asia in UTF-8."""
LEAST_MEANT_RATIO = 0.75
"""Share of a run's bytes that must be characters of East Asia in UTF-8, and of these that must be
frequent ones."""
LATIN = re.compile("[\u00a1-\u00ff]{4,}")
SIGN = re.compile("[\u00a1-\u00bf\u00d7\u00f7]")
SURE_LATIN_CHARS = 8
"""Words of no language have so many letters beyond ASCII in a row, nor four of them with a sign."""


def _read_frequent() -> Iterator[str]:
    """The frequent Chinese characters of GB 2312, its punctuation, and kana."""
    for lead in (*PUNCTUATION, 0xA4, 0xA5, *FREQUENT_HANZI):
        for second in SECOND_BYTES:
            yield bytes([lead, second]).decode("gb2312", errors="ignore")


def _read_leads() -> str:
    """What the first two bytes of a character in UTF-8 are in the encodings of East Asia."""
    pairs = [bytes([lead, trail]) for lead in LEADS for trail in TRAILS]
    found = {pair.decode(name, errors="ignore") for pair in pairs for name in EAST_ASIAN_ENCODINGS}
    return "".join(sorted(char for char in found if len(char) == 1))


FREQUENT = frozenset(_read_frequent()) - {""}
SUSPECT = re.compile(f"[{_read_leads()}]")
"""Rare in texts that are meant; text that was decoded wrongly has one of them in each run."""


def find_mojibake(text: str) -> tuple[str, str] | None:
    """Where a text was decoded wrongly, and what it probably was; None where nothing shows it."""
    if text.isascii():
        return None
    if sure := next(filter(text.__contains__, SURE), "") or ENGLISH_IN_GBK.search(text):
        return (sure if isinstance(sure, str) else sure[0]), ""
    for run in EAST_ASIAN.findall(text) if SUSPECT.search(text) else ():
        if meant := _read_as_utf8(run):
            return run, meant
    for run in LATIN.findall(text):
        if meant := _read_as_gbk(run):
            return run, meant
    return _find_western(text)


def _read_as_utf8(run: str) -> str:
    """The text whose UTF-8 was read as an East Asian encoding; '' where none is likely."""
    for encoding in EAST_ASIAN_ENCODINGS:
        try:
            content = run.encode(encoding)
        except UnicodeEncodeError:
            continue
        meant = "".join(MEANT.findall(content.decode("utf-8", errors="ignore")))
        num_frequent = sum(char in FREQUENT for char in meant)
        is_whole = len(meant.encode()) >= LEAST_MEANT_RATIO * len(content)
        if is_whole and num_frequent > 1 and num_frequent >= LEAST_MEANT_RATIO * len(meant):
            return meant
    return ""


def _read_as_gbk(run: str) -> str:
    """The Chinese text whose bytes in GBK were read as Latin-1; '' where none is likely."""
    if len(run) % 2 or not (SIGN.search(run) or len(run) >= SURE_LATIN_CHARS):
        return ""
    content = run.encode("latin-1")
    num_hanzi = sum(lead in FREQUENT_HANZI for lead in content[::2])
    num_signs = sum(lead in PUNCTUATION for lead in content[::2])
    if num_hanzi < 2 or num_hanzi + num_signs < len(run) // 2:
        return ""
    return content.decode("gbk", errors="ignore")


def _find_western(text: str) -> tuple[str, str] | None:
    """The first word or line that ftfy finds wrong and can repair."""
    # Slow to import, and settings name this reader's formats without reading any text.
    import ftfy
    from ftfy.badness import is_bad

    if not is_bad(text):
        return None
    for part in text.splitlines():
        if is_bad(part) and (meant := ftfy.fix_encoding(part)) != part:
            words = zip(part.split(" "), meant.split(" "), strict=False)
            return next(((word, other) for word, other in words if word != other), (part, meant))
    return None


class MojibakeCount:
    """How many entries of a source were decoded wrongly, with examples."""

    def __init__(self) -> None:
        self.num_entries = 0
        self.examples: list[str] = []

    def add(self, texts: Iterable[str], *, place: str) -> None:
        """Count an entry that one of these texts shows to be wrong."""
        found = next(filter(None, map(find_mojibake, texts)), None)
        if found is None:
            return
        self.num_entries += 1
        if len(self.examples) < NUM_EXAMPLES:
            wrong, meant = (text[:SHOWN_CHARS] for text in found)
            self.examples.append(f"{place}: {wrong}" + (f" for {meant}" if meant else ""))

    def notes(self, *, source: str) -> Iterator[Note]:
        """What the data card says of it, if anything; logged as well."""
        if not self.num_entries:
            return
        logger.warning(
            "%s: %d entries hold text that was decoded wrongly before the file was written, such "
            "as %s; they stay as they are: make the file again from where they came from, with the "
            "right encoding",
            source,
            self.num_entries,
            "; ".join(self.examples),
        )
        value = {"entries": self.num_entries, "examples": self.examples}
        yield Note("decoded_wrongly_before", {source: value})
