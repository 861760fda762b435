"""Files of further names to be marked in texts."""

from pathlib import Path

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import Text
from limbeck.data.filters.normalization.record import Normalization, Normalizer
from limbeck.data.readers.text_files import EncodingName, Line, read_lines


class LexiconFile(Config):
    """A list of names: one a line, a frequency after a tab allowed."""

    path: Path
    type: Text
    """What the names are: an entity type of the pack, or another word."""
    normalization: Normalization = "none"
    """As of the source whose texts hold the names."""
    encoding: EncodingName = ""
    """Empty: detected."""


def read_names(config: LexiconFile) -> list[str]:
    """The cleaned names of a lexicon file; a line that cannot be decoded holds none.

    Raises:
        DataError: the file is missing, or holds no name.
    """
    found = read_lines(config.path, encoding=config.encoding)
    lines = (line for line in found if isinstance(line, Line))
    clean = Normalizer(config.normalization, source=config.path.stem).clean
    names = [clean(line.text.split("\t")[0]).strip() for line in lines]
    names = [name for name in names if name]
    if not names:
        raise DataError("holds no name; expected one a line", path=config.path)
    return names
