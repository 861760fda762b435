"""What every reader shares: its Config and what it yields."""

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import PositiveInt, Ratio
from limbeck.contracts.records import Change, Drop, Note, Question, Record, Source, Split
from limbeck.data.filters.normalization.record import Normalization
from limbeck.data.packs.schema import Pack

SHOWN_CHARS = 120

ReaderItem = Record | Question | Drop | Change | Note


class ReaderConfig(Config, abc.ABC):
    """Base of the `Config` of every source."""

    free_text: ClassVar[bool] = False
    """Whether people wrote the answers freely: most filters apply to such records only."""
    has_answers: ClassVar[bool] = True
    """Whether its questions have answers."""
    normalizes: ClassVar[bool] = False
    """Whether it brings its texts into the form of `normalization` itself, as parts of questions;
    the records of all others are brought into it whole."""

    kind: str
    """The name of the reader's kind, as in the registry."""
    name: str = ""
    """What the data card calls it; empty: after its file."""
    normalization: Normalization = "none"
    """How its texts are changed. `none`: not at all; `light`: line ends, control characters and
    letters apart from their marks; `zh`: Chinese prose in one form."""
    max_dropped_ratio: Ratio = 0.05
    """A larger share of faulty records stops the stage. Repetitions, and what the recipe leaves out
    by its own choice, do not count."""
    max_records: PositiveInt = 1_000_000
    """Most records kept; beyond that a fixed random choice of them."""

    @property
    def domain_need(self) -> str:
        """What of it needs the domain of a pack; empty: nothing."""
        return ""

    @property
    def stated_split(self) -> Split | None:
        """The split of the corpus that all its records are in; None: they are in each."""
        return None

    @property
    @abc.abstractmethod
    def default_name(self) -> str:
        """What the source is called where the recipe gives no name."""

    @abc.abstractmethod
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
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
        DataError: the file is missing or empty, is no regular file, or may not be read.
    """
    if path.is_dir():
        raise DataError("is a folder, expected a file; name one file in it", path=path)
    if path.exists() and not path.is_file():
        raise DataError(
            "is a pipe or a device, expected a file: it is read more than once; write what it "
            "gives to a file first",
            path=path,
        )
    if not path.is_file():
        if path.is_symlink():
            raise DataError(f"is a link to {str(path.readlink())!r}, where no file is", path=path)
        raise DataError("no such file; check the path in the recipe", path=path)
    if not os.access(path, os.R_OK):
        raise DataError(
            "may not be read: permission denied; ask its owner, or copy it to where you may",
            path=path,
        )
    if not path.stat().st_size:
        raise DataError("is empty: 0 bytes; write it again, or name another file", path=path)
    return path
