"""Tables of text: commas, tabs or another separator, in any encoding, quoted or not."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.records import Drop, Note, Reason
from limbeck.data.readers.base import SHOWN_CHARS
from limbeck.data.readers.column_names import describe_columns, nearest, quote
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_shapes import find_shape
from limbeck.data.readers.row_values import Row
from limbeck.data.readers.table_lines import (
    Quoting,
    TableLayout,
    TableLine,
    find_layout,
    find_quoting,
    find_separator,
    table_lines,
)
from limbeck.data.readers.text_files import (
    LINE_TOO_LONG,
    REPLACED,
    TextFileReaderConfig,
    encoding_notes,
    find_encoding,
)

SEPARATORS = {".tsv": "\t", ".tab": "\t"}
REPEATED_HEADER = Reason("repeated_header", "重复的表头", "header again", counts_as="surplus")
BROKEN_ROW = Reason("broken_row", "表格行损坏", "broken row")


class Config(TextFileReaderConfig, RowReaderConfig):
    """Questions and answers in a table."""

    kind: Literal["csv"] = "csv"
    header: tuple[str, ...] = ()
    """Names of the columns when the file's first line does not give them."""
    separator: Annotated[str, Field(pattern=r'^[^"\r\n]?$')] = ""
    """Empty: the one with which the first line gives the columns that are needed."""
    quoting: Literal["auto", "rfc4180", "none"] = "auto"
    """Whether quotation marks enclose fields, or are text; `auto`: what the whole file shows."""

    @override
    def rows(self) -> Iterator[Row | Drop | Note]:
        found = find_encoding(self.path, self.encoding)
        yield from encoding_notes(self.path, found)
        first = SEPARATORS.get(self.path.suffix.lower(), ",")
        separator = find_separator(
            self.path,
            encoding=found.name,
            wanted=self.separator,
            first=first,
            fits=self._fits_header,
        )
        num_columns = len(self.header) or None
        if self.quoting == "none":
            layout = TableLayout(found.name, separator)
        else:
            layout = find_layout(
                self.path, encoding=found.name, separator=separator, num_columns=num_columns
            )
        if self.quoting == "auto":
            quoting = find_quoting(self.path, layout=layout, num_columns=num_columns)
        else:
            quoting = Quoting(self.quoting)
        lines = table_lines(self.path, layout=layout, quoting=quoting)
        header = self.header or self._read_header(next(lines, None))
        self._check_header(header)
        if separator != first:
            yield Note("separator", {self.path.name: separator})
        num_joined = 0
        for line in lines:
            if line.is_blank:
                continue
            item = self._read_line(line, header, layout=layout, quoting=quoting)
            num_joined += isinstance(item, Row) and line.last > line.first
            yield from [item] if isinstance(item, Row) else item
        if num_joined:
            yield Note("rows_of_several_lines", {self.path.name: num_joined})

    def _read_line(
        self, line: TableLine, header: tuple[str, ...], *, layout: TableLayout, quoting: Quoting
    ) -> Row | list[Drop]:
        """The row of a line, or a drop for each line that its fault costs."""
        fields, reason, fault = line.fields, BROKEN_ROW, line.fault
        is_joined = line.joins_rows(layout.separator, num_columns=len(header))
        if line.is_cut:
            reason = LINE_TOO_LONG
        elif not fault and len(fields) != len(header):
            fault = f"{len(fields)} fields, expected {len(header)}"
        elif quoting is Quoting.DOUBTFUL and is_joined:
            fault = "quotation marks join lines that are rows of their own; set `quoting`"
        place = f"{self.path.name}:{line.first}"
        if not fault and tuple(map(str.strip, fields)) == header:
            return [Drop(REPEATED_HEADER, self.label, place)]
        if not fault:
            return Row(place, dict(zip(header, fields, strict=True)))
        detail = f"{fault}: {' '.join(fields)[:SHOWN_CHARS]}"
        return [
            Drop(reason, self.label, f"{self.path.name}:{number}", detail)
            for number in range(line.first, line.last + 1)
        ]

    def _fits_header(self, names: tuple[str, ...]) -> bool:
        """Whether the first line, cut at some separator, gives the columns that are needed."""
        if self.header:
            return len(names) == len(self.header)
        return not self._missing(names)

    def _missing(self, header: tuple[str, ...]) -> list[str]:
        shape = find_shape(self.columns, present=header)
        wanted = list(self.where)
        if shape in ("", "columns"):
            wanted += [*self.columns.question, self.columns.answer]
        return [name for name in wanted if name not in header]

    def _read_header(self, line: TableLine | None) -> tuple[str, ...]:
        if line is None or line.fault or line.is_cut:
            fault = line.fault if line else "it holds no line"
            raise DataError(f"is no table: {fault}", path=self.path, line=1)
        return tuple(name.strip() for name in line.fields)

    def _check_header(self, header: tuple[str, ...]) -> None:
        twice = [name for name in header if name and header.count(name) > 1]
        if twice:
            message = f"has two columns {twice[0]!r}; rename one, or set `header`"
            raise DataError(message, path=self.path, line=1)
        if any(REPLACED in name for name in header):
            message = f"has undecodable column names {quote(header)}; set `encoding`"
            raise DataError(message, path=self.path, line=1)
        missing = self._missing(header)
        if not missing:
            return
        if missing[0] in self.where:
            near = nearest(missing[0], found=header)
            hint = f"did you mean {near!r}?" if near else "check `where`"
            message = f"has no column {missing[0]!r}; found {quote(header)}; {hint}"
        else:
            message = (
                f"{describe_columns(header, self.columns)}, or `header` when the first line holds "
                "data, or `separator`"
            )
            raise ColumnsError(message, found=header, path=self.path, line=1)
        raise DataError(message, path=self.path, line=1)
