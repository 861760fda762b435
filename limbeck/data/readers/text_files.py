"""Text files: their encoding, and their lines, never more of them in memory than one.

A line that cannot be decoded, or that is too long to be one entry, is a drop with its place. Left
out: what a line means.
"""

import abc
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

from pydantic import AfterValidator

from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.readers.base import SHOWN_CHARS, FileReaderConfig, check_file
from limbeck.data.readers.encoding import Encoding, check_encoding, detect_encoding

logger = logging.getLogger(__name__)

REPLACED = "\ufffd"
"""Stands where bytes had no meaning, here or in the program that wrote the file."""
LINE_ENDS = ("\r", "\n")
MAX_LINE_CHARS = 1 << 26
"""A longer line is no entry of a data set; most lines of a broken file are one such line."""
PART_CHARS = 1 << 20
"""Lines are read in parts of this length."""
UNDECODABLE = Reason("undecodable", "无法解码", "cannot be decoded")
LINE_TOO_LONG = Reason("line_too_long", "行过长", "line too long")
EncodingName = Annotated[str, AfterValidator(check_encoding)]
"""A text encoding that Python knows, or '' for the one that is detected."""


@dataclass(frozen=True)
class Line:
    """One line of a text file, without its end where it was read so."""

    number: int
    text: str
    is_cut: bool = False
    """Whether it is longer than `MAX_LINE_CHARS`; the text is then its beginning."""


class TextFileReaderConfig(FileReaderConfig, abc.ABC):
    """Base of the readers of text files."""

    encoding: EncodingName = ""
    """Of the file, such as `cp1252`; empty: detected, and named in the data card."""

    def lines(self, path: Path) -> Iterator[Line | Drop | Note]:
        """The lines of a file; first what the data card says of its encoding.

        Raises:
            DataError: the file is missing, is no text, or is empty.
        """
        return read_lines(path, encoding=self.encoding, source=self.label)


def read_lines(path: Path, *, encoding: str = "", source: str = "") -> Iterator[Line | Drop | Note]:
    """The lines of a text file without their ends, and drops for those that cannot be read.

    Raises:
        DataError: the file is missing, is no text, or is empty.
    """
    found = find_encoding(path, encoding)
    yield from encoding_notes(path, found)
    for line in bounded_lines(path, encoding=found.name):
        if fault := line_fault(line, path=path, source=source):
            yield fault
        else:
            yield line


def find_encoding(path: Path, encoding: str) -> Encoding:
    """The encoding that is set, or the one detected.

    Raises:
        DataError: the file is missing, is no text, or is empty.
    """
    check_file(path)
    return Encoding(encoding) if encoding else detect_encoding(path)


def encoding_notes(path: Path, found: Encoding) -> Iterator[Note]:
    """What the data card says of a file's encoding; a doubt is logged as well."""
    yield Note("encoding", {path.name: found.name})
    if found.doubt:
        logger.warning("%s: read as %s: %s", path, found.name, found.doubt)
        yield Note("encoding_uncertain", {path.name: found.doubt})


def line_fault(line: Line, *, path: Path, source: str) -> Drop | None:
    """The drop of a line that cannot be read."""
    place, shown = f"{path.name}:{line.number}", line.text[:SHOWN_CHARS]
    if line.is_cut:
        return Drop(LINE_TOO_LONG, source, place, f"over {MAX_LINE_CHARS:,} characters: {shown}")
    return Drop(UNDECODABLE, source, place, shown) if REPLACED in line.text else None


def bounded_lines(path: Path, *, encoding: str, newline: str | None = None) -> Iterator[Line]:
    """The lines of a file, of a longer one than `MAX_LINE_CHARS` only its beginning.

    With `newline=""` they keep their ends, whichever these are; otherwise they have none.
    """
    with path.open(encoding=encoding, errors="replace", newline=newline) as file:
        number = 0
        while (line := _read_line(file)) is not None:
            number += 1
            text, is_cut = line
            text = text if is_cut else text.lstrip("\ufeff").replace("\0", REPLACED)
            yield Line(number, text.rstrip("\r\n") if newline is None else text, is_cut)


def _read_line(file: TextIO) -> tuple[str, bool] | None:
    """The next line and whether only its beginning is given; None at the file's end.

    Of a line too long, no more than `MAX_LINE_CHARS` are ever in memory, and only once.
    """
    part = file.readline(PART_CHARS)
    if not part:
        return None
    parts, num_chars = [part], len(part)
    while not part.endswith(LINE_ENDS) and (part := file.readline(PART_CHARS)):
        num_chars += len(part)
        if num_chars <= MAX_LINE_CHARS:
            parts.append(part)
        else:
            del parts[1:]
    return (parts[0][:SHOWN_CHARS], True) if num_chars > MAX_LINE_CHARS else ("".join(parts), False)
