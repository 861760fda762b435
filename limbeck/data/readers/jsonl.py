"""JSON, one object a line, or one array of objects; a file, or every such file of a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.readers.base import (
    REPLACED,
    SHOWN_CHARS,
    UNDECODABLE,
    FileReaderConfig,
    read_lines,
)
from limbeck.data.readers.row_formats import Row, RowReaderConfig

BROKEN_JSON = Reason("broken_json", "JSON 损坏", "broken JSON")
NOT_AN_OBJECT = Reason("not_an_object", "不是对象", "not an object")


class Config(FileReaderConfig, RowReaderConfig):
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
            yield from json_rows(path, source=self.label)


def json_rows(path: Path, *, source: str) -> Iterator[Row | Drop | Note]:
    """The objects of one file, and a drop for each line that is none.

    Raises:
        DataError: the file is missing, is no text, or is a broken array.
    """
    encoding, lines = read_lines(path)
    yield Note("encoding", {path.name: encoding})
    first = True
    for number, line in lines:
        if not line.strip():
            continue
        if first and line.lstrip().startswith("["):
            yield from _array_rows(path, encoding=encoding, source=source)
            return
        first = False
        place = f"{path.name}:{number}"
        shown = line[:SHOWN_CHARS]
        if REPLACED in line:
            yield Drop(UNDECODABLE, source, place, shown)
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Drop(BROKEN_JSON, source, place, shown)
            continue
        if isinstance(value, dict):
            yield Row(place, value)
        else:
            yield Drop(NOT_AN_OBJECT, source, place, shown)


def _array_rows(path: Path, *, encoding: str, source: str) -> Iterator[Row | Drop]:
    try:
        values = json.loads(path.read_text(encoding=encoding, errors="replace"))
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        raise DataError(f"is a broken JSON array: {error}", path=path, line=line) from None
    for number, value in enumerate(values, start=1):
        place = f"{path.name}:item {number}"
        if isinstance(value, dict):
            yield Row(place, value)
        else:
            yield Drop(NOT_AN_OBJECT, source, place, repr(value)[:SHOWN_CHARS])
