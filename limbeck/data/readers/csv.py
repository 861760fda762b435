"""Tables of text: commas, tabs or another separator, in any encoding, quoted or not."""

import csv
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.readers.base import (
    REPLACED,
    SHOWN_CHARS,
    UNDECODABLE,
    FileReaderConfig,
    check_file,
)
from limbeck.data.readers.encoding import detect_encoding
from limbeck.data.readers.row_formats import Row, RowReaderConfig

SEPARATORS = {".tsv": "\t"}
BROKEN_ROW = Reason("broken_row", "表格行损坏", "broken row")


class Config(FileReaderConfig, RowReaderConfig):
    """Questions and answers in a table."""

    kind: Literal["csv"] = "csv"
    header: tuple[str, ...] = ()
    """Names of the columns when the file's first line does not give them."""
    separator: Annotated[str, Field(pattern=r'^[^"\r\n]?$')] = ""
    """Empty: a tab in `*.tsv` files, a comma elsewhere."""

    @override
    def rows(self) -> Iterator[Row | Drop | Note]:
        encoding = detect_encoding(check_file(self.path))
        yield Note("encoding", {self.path.name: encoding})
        separator = self.separator or SEPARATORS.get(self.path.suffix, ",")
        with self.path.open(encoding=encoding, errors="replace", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            header = self.header or self._read_header(reader)
            header = tuple(name.lstrip("\ufeff") for name in header)
            self._check_header(header)
            yield from self._rows(reader, header)

    def _rows(self, reader: Any, header: tuple[str, ...]) -> Iterator[Row | Drop]:
        while True:
            before = reader.line_num
            fields, fault = _next_row(reader)
            if fields is None:
                return
            if fields and not fault and len(fields) != len(header):
                fault = f"{len(fields)} fields, expected {len(header)}"
            shown = " ".join(fields)[:SHOWN_CHARS]
            if fault:
                # A quote left open swallows the lines after it: each of them is lost, and counted.
                for number in range(before + 1, reader.line_num + 1):
                    place = f"{self.path.name}:{number}"
                    yield Drop(BROKEN_ROW, self.label, place, f"{fault}: {shown}")
            elif any(REPLACED in field for field in fields):
                yield Drop(UNDECODABLE, self.label, f"{self.path.name}:{before + 1}", shown)
            elif fields:
                place = f"{self.path.name}:{before + 1}"
                yield Row(place, dict(zip(header, fields, strict=True)))

    def _read_header(self, reader: Any) -> tuple[str, ...]:
        try:
            return tuple(name.strip() for name in next(reader, []))
        except csv.Error as error:
            raise DataError(f"is no table: {error}", path=self.path, line=1) from None

    def _check_header(self, header: tuple[str, ...]) -> None:
        columns = (*self.columns.question, self.columns.answer, *self.where)
        missing = [name for name in columns if name not in header]
        known_shape = "instruction" in header and "output" in header
        if missing and not known_shape:
            found = ", ".join(repr(name) for name in header[:12]) or "none"
            raise DataError(
                f"has no column {missing[0]!r}; found {found}; set `columns`, or `header` when "
                "the first line holds data",
                path=self.path,
                line=1,
            )


def _next_row(reader: Any) -> tuple[list[str] | None, str]:
    """The next row and what is wrong with it; no row at the end of the file."""
    try:
        return next(reader, None), ""
    except csv.Error as error:
        return [], str(error)
