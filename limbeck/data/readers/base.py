"""What every source shares: its Config, what it yields, and reading text files line by line.

Left out: the kinds of source themselves.
"""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note, Question, Record
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.encoding import detect_encoding

REPLACED = "\ufffd"


Item = Record | Question | Drop | Note


class ReaderConfig(Config):
    """Base of the `Config` of every source."""

    free_text: ClassVar[bool] = False
    """Whether people wrote the answers freely: then they are cleaned, measured and scored."""

    kind: Any
    """The name of the reader's kind, as in the registry."""
    name: str = ""
    """What the data card calls it; empty: after its file."""
    max_records: Annotated[int, Field(ge=1)] = 1_000_000
    """Most records kept; beyond that a fixed random choice of them."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """What the source is called in counts and in records."""

    @abc.abstractmethod
    def read(self, *, pack: Pack, seed: int) -> Iterator[Item]:
        """Everything the source holds; never an exception for a single bad entry."""


def read_lines(path: Path) -> tuple[str, Iterator[tuple[int, str]]]:
    """A text file's encoding, and its lines with their numbers, without their ends.

    Raises:
        DataError: the file is missing, is no text, or is empty.
    """
    if not path.is_file():
        raise DataError("no such file; check the path in the recipe", path=path)
    if not path.stat().st_size:
        raise DataError("is empty", path=path)
    encoding = detect_encoding(path)
    return encoding, _lines(path, encoding=encoding)


def _lines(path: Path, *, encoding: str) -> Iterator[tuple[int, str]]:
    with path.open(encoding=encoding, errors="replace") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.lstrip("\ufeff").rstrip("\r\n")
