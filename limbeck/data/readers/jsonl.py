"""JSON, one object a line, or one array of objects; a file, or every such file of a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import Json, JsonObject
from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.readers import text_files
from limbeck.data.readers.base import SHOWN_CHARS
from limbeck.data.readers.json_text import DuplicateKeyError, array_items, parse_json
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_values import Row
from limbeck.data.readers.text_files import (
    TextFileReaderConfig,
    bounded_lines,
    encoding_notes,
    find_encoding,
    line_fault,
)

BROKEN_JSON = Reason("broken_json", "JSON 损坏", "broken JSON")
DUPLICATE_KEY = Reason("duplicate_key", "键重复", "duplicate key")
NOT_AN_OBJECT = Reason("not_an_object", "不是对象", "not an object")


class Config(TextFileReaderConfig, RowReaderConfig):
    """Questions and answers in JSON."""

    kind: Literal["jsonl"] = "jsonl"
    path: Path
    """A file, or a folder whose `*.jsonl` and `*.json` files are all read."""

    @override
    def rows(self) -> Iterator[Row | Drop | Note]:
        paths = [self.path]
        if self.path.is_dir():
            paths = sorted(p for p in self.path.iterdir() if p.suffix in (".jsonl", ".json"))
            if not paths:
                raise DataError("holds no *.jsonl or *.json file", path=self.path)
        for path in paths:
            num_rows = 0
            for item in json_rows(path, encoding=self.encoding, source=self.label):
                num_rows += isinstance(item, Row)
                yield item
            if len(paths) > 1:
                yield Note("rows_by_file", {path.name: num_rows})


def json_rows(path: Path, *, encoding: str, source: str) -> Iterator[Row | Drop | Note]:
    """The objects of one file, and a drop for each line that is none.

    Raises:
        DataError: the file is missing, is no text, or is a broken array.
    """
    found = find_encoding(path, encoding)
    yield from encoding_notes(path, found)
    is_first = True
    for line in bounded_lines(path, encoding=found.name):
        if not line.text.strip():
            continue
        if is_first and line.text.lstrip().startswith("["):
            yield from _array_rows(path, encoding=found.name, source=source)
            return
        if is_first and (whole := _whole_object(path, line.text, encoding=found.name)) is not None:
            yield Row(f"{path.name}:{line.number}", whole)
            return
        is_first = False
        place = f"{path.name}:{line.number}"
        if fault := line_fault(line, path=path, source=source):
            yield fault
            continue
        try:
            yield _row(_parse_line(line.text), place=place, source=source)
        except DuplicateKeyError as error:
            yield Drop(DUPLICATE_KEY, source, place, f"{error}: {line.text[:SHOWN_CHARS]}")
        except ValueError as error:
            yield Drop(BROKEN_JSON, source, place, f"{line.text[:SHOWN_CHARS]} ({error})")


def _parse_line(text: str) -> Json:
    """The value of a line, without a comma behind it, as between the items of an array."""
    try:
        return parse_json(text)
    except DuplicateKeyError:
        raise
    except ValueError:
        bare = text.rstrip()
        if not bare.endswith(","):
            raise
        return parse_json(bare[:-1])


def _row(value: Json, *, place: str, source: str) -> Row | Drop:
    if isinstance(value, dict):
        return Row(place, value)
    return Drop(NOT_AN_OBJECT, source, place, repr(value)[:SHOWN_CHARS])


def _whole_object(path: Path, first_line: str, *, encoding: str) -> JsonObject | None:
    """The one object that a file holds over several lines; None where it holds something else."""
    if not first_line.lstrip().startswith("{") or path.stat().st_size > text_files.MAX_LINE_CHARS:
        return None
    try:
        parse_json(first_line)
    except ValueError:
        pass
    else:
        return None
    try:
        whole = parse_json(path.read_text(encoding=encoding, errors="replace").lstrip("\ufeff"))
    except ValueError:
        return None
    return whole if isinstance(whole, dict) else None


def _array_rows(path: Path, *, encoding: str, source: str) -> Iterator[Row | Drop]:
    number = 0
    with path.open(encoding=encoding, errors="replace") as file:
        try:
            for number, value in enumerate(array_items(file), start=1):
                place = f"{path.name}:item {number}"
                if isinstance(value, DuplicateKeyError):
                    yield Drop(DUPLICATE_KEY, source, place, str(value))
                else:
                    yield _row(value, place=place, source=source)
        except ValueError as error:
            raise DataError(
                f"is a broken JSON array after item {number}: {error}; write it again to its "
                "end, or as .jsonl, an object a line, of which only the broken line is lost",
                path=path,
            ) from None
