"""Which encoding a text file is in, detected from the whole file and never from a cut character.

Left out: what its lines mean.
"""

import codecs
from pathlib import Path

import charset_normalizer

from limbeck.contracts.errors import DataError

CHUNK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
MOST_DAMAGE_RATIO = 0.02
"""Undecodable share of the non-ASCII text up to which an encoding still counts as the file's."""
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
COMMON = {
    "gb18030": ({*range(0xA1, 0xA4), *range(0xB0, 0xD8)}, range(0xA1, 0xFF)),
    "big5": ({*range(0xA1, 0xC7)}, range(0x40, 0xFF)),
}
"""First and second bytes of punctuation and frequent characters, in each Chinese encoding."""
LEAST_COMMON_RATIO = 0.7
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "hz": "gb18030", "ascii": "utf-8"}


def detect_encoding(path: Path) -> str:
    """The name of a file's encoding.

    Raises:
        DataError: the file cannot be read, or is no text in any known encoding.
    """
    sample = _read_sample(path)
    for mark, name in MARKS.items():
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        raise DataError("holds zero bytes, so it is not a text file", path=path)
    for name in _candidates(sample):
        if _damage_ratio(path, encoding=name) <= MOST_DAMAGE_RATIO:
            return name
    raise DataError("is text in no known encoding; write it again in UTF-8 or GB18030", path=path)


def _candidates(sample: bytes) -> list[str]:
    """Encodings to try: UTF-8 proves itself, then Chinese ones that read well, then statistics."""
    # Line ends are never part of a multi-byte character, so whole lines decode whole.
    whole = sample[: sample.rfind(b"\n") + 1] or sample
    readable = {name: _common_ratio(whole, encoding=name) for name in COMMON}
    names = ["utf-8"]
    names += sorted(
        (name for name, ratio in readable.items() if ratio >= LEAST_COMMON_RATIO),
        key=lambda name: -readable[name],
    )
    best = charset_normalizer.from_bytes(whole).best()
    if best is not None:
        names.append(SUPERSETS.get(best.encoding, best.encoding))
    return list(dict.fromkeys([*names, "gb18030"]))


def _common_ratio(sample: bytes, *, encoding: str) -> float:
    """Share of the characters beyond ASCII that are frequent ones, read in this encoding."""
    text = sample.decode(encoding, errors="replace")
    beyond = [char for char in text if not char.isascii()]
    leads, trails = COMMON[encoding]
    codes = (char.encode(encoding, errors="ignore") for char in beyond)
    common = (len(code) == 2 and code[0] in leads and code[1] in trails for code in codes)
    return sum(common) / max(1, len(beyond))


def _read_sample(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SAMPLE_BYTES)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}; check the path", path=path) from None


def _damage_ratio(path: Path, *, encoding: str) -> float:
    """Share of the characters beyond ASCII that the encoding cannot explain."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    beyond, damaged = 0, 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            text = decoder.decode(chunk, final=not chunk)
            beyond += len(text) - len(text.encode("ascii", errors="ignore"))
            damaged += text.count("\ufffd")
            if not chunk:
                return damaged / max(1, beyond)
