"""What every reader shares: its Config and what it yields."""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.records import Drop, Note, Question, Record, Source
from limbeck.data.packs.schema import Pack

SHOWN_CHARS = 120

Item = Record | Question | Drop | Note


class ReaderConfig(Config, abc.ABC):
    """Base of the `Config` of every source."""

    free_text: ClassVar[bool] = False
    """Whether people wrote the answers freely: most filters apply to such records only."""

    kind: Any
    """The name of the reader's kind, as in the registry."""
    name: str = ""
    """What the data card calls it; empty: after its file."""
    max_records: PositiveInt = 1_000_000
    """Most records kept; beyond that a fixed random choice of them."""

    @property
    @abc.abstractmethod
    def default_name(self) -> str:
        """What the source is called where the recipe gives no name."""

    @abc.abstractmethod
    def read(self, *, pack: Pack, seed: int) -> Iterator[Item]:
        """Everything the source holds; never an exception for a single bad entry.

        Raises:
            DataError: the source is missing, or holds nothing of the kind.
        """

    @property
    def label(self) -> str:
        """What the source is called in counts and in records."""
        return self.name or self.default_name

    @property
    def source(self) -> Source:
        """Its description for the filters."""
        return Source(self.label, self.free_text, self.max_records)


class FileReaderConfig(ReaderConfig):
    """Base of the readers of one file or folder."""

    path: Path

    @property
    @override
    def default_name(self) -> str:
        return self.path.stem


def check_file(path: Path) -> Path:
    """The path of a file that holds something.

    Raises:
        DataError: the file is missing or empty.
    """
    if path.is_dir():
        raise DataError("is a folder, expected a file; name one file in it", path=path)
    if not path.is_file():
        raise DataError("no such file; check the path in the recipe", path=path)
    if not path.stat().st_size:
        raise DataError("is empty", path=path)
    return path
