"""The lines of a table, cut into fields: which separator it has, and whether it quotes fields.

In RFC 4180 a field between quotation marks may hold separators, line ends and doubled marks. Many
tables do not quote, and there a mark is text: read as quoting, one mark would swallow the lines
after it. What the whole file shows decides. A mark out of place costs its lines, each counted.
"""

import csv
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from limbeck.data.readers import text_files
from limbeck.data.readers.text_files import Line, bounded_lines

QUOTE = '"'
TAB = "\t"
SPACED = re.compile(' +"')
"""Begins a field before which a blank stands and a mark, where marks enclose fields."""
LAYOUT_ROWS = 10_000
"""Rows that show how a table is laid out."""
MOST_BAD_RATIO = 0.05
"""Share of a table's rows that may be broken where blanks stand between its fields."""
LEAST_JOINED = 3
"""Rows of several lines from which on chance has not balanced their marks."""
CANDIDATES = (",", ";", TAB, "|")
BLANKS = " \t\r\n\u00a0\x1a"
"""What a row without content holds; the last one ends files of MS-DOS."""
HINT = "sep="
"""Begins a first line that tells Excel the separator."""


class Quoting(Enum):
    """Whether quotation marks enclose fields."""

    RFC4180 = "rfc4180"
    DOUBTFUL = "doubtful"
    """They do, but where they join lines that are rows of their own, chance may have done it."""
    NONE = "none"


@dataclass(frozen=True)
class TableLayout:
    """How a table's bytes are text, and its lines are fields."""

    encoding: str
    separator: str
    skips_blanks: bool = False
    """Whether blanks behind a separator belong to no field."""


@dataclass(frozen=True)
class TableLine:
    """The fields of one row, or why it has none; and its first and last line in the file."""

    first: int
    last: int
    raw: tuple[str, ...]
    """Its lines as they stand."""
    fields: list[str]
    fault: str = ""
    is_cut: bool = False
    """Whether one of its lines is longer than any row."""

    @property
    def is_blank(self) -> bool:
        """Whether it has fields and nothing in them, as spreadsheets write rows below the last."""
        return not (self.fault or self.is_cut or "".join(self.fields).strip(BLANKS))

    def opens_quote(self, separator: str) -> bool:
        """Whether a field begins with a mark."""
        return any(line.startswith(QUOTE) or separator + QUOTE in line for line in self.raw)

    def needs_quotes(self, separator: str) -> bool:
        """Whether a field holds what it could not hold without marks around it."""
        signs = (separator, QUOTE, "\n", "\r")
        return any(sign in text for text in self.fields for sign in signs)

    def joins_rows(self, separator: str, *, num_columns: int) -> bool:
        """Whether several lines are one row here, each of which alone would be a row as well."""
        counts = {line.count(separator) for line in self.raw}
        return len(self.raw) > 1 and counts == {num_columns - 1}


def find_separator(
    path: Path,
    *,
    encoding: str,
    wanted: str,
    first: str,
    fits: Callable[[tuple[str, ...]], bool],
) -> str:
    """The separator that is wanted, that the file names, or with which its first line fits."""
    if wanted:
        return wanted
    hint = _read_hint(path, encoding=encoding)
    if hint:
        return hint
    for line in _text_lines(path, encoding=encoding):
        cut = {sign: _cut_line(line.text, sign) for sign in dict.fromkeys((first, *CANDIDATES))}
        fitting = [sign for sign, names in cut.items() if fits(names)]
        # Of those that do not fit, the one with most columns says most about the file.
        return fitting[0] if fitting else max(cut, key=lambda sign: len(cut[sign]))
    return first


def find_layout(
    path: Path, *, encoding: str, separator: str, num_columns: int | None
) -> TableLayout:
    """How a table is cut: with blanks between separators and marks where nearly all rows fit so, as
    in `"a", "b"`; its first rows show it.
    """
    plain = TableLayout(encoding, separator)
    wide = TableLayout(encoding, separator, skips_blanks=True)
    rows = _first_rows(path, layout=plain)
    num_spaced = sum(any(map(SPACED.match, row.fields)) for row in rows)
    if separator == TAB or not num_spaced:
        return plain
    num_rows = num_bad = 0
    for row in _first_rows(path, layout=wide):
        num_columns = num_columns or len(row.fields)
        num_rows += 1
        num_bad += bool(row.fault) or len(row.fields) != num_columns
    return wide if num_bad < num_spaced and num_bad <= MOST_BAD_RATIO * num_rows else plain


def _first_rows(path: Path, *, layout: TableLayout) -> Iterator["TableLine"]:
    return itertools.islice(table_lines(path, layout=layout, quoting=Quoting.RFC4180), LAYOUT_ROWS)


def find_quoting(path: Path, *, layout: TableLayout, num_columns: int | None) -> Quoting:
    """Whether a table quotes its fields, by all of its lines.

    A table of commas does. In one of tabs a mark before or after a field is mostly a text's own: it
    quotes where quoting explains what is inside, or where every row has it.
    """
    good = needed = bad = joined = num_rows = num_marked = 0
    separator = layout.separator
    for row in table_lines(path, layout=layout, quoting=Quoting.RFC4180):
        num_columns = num_columns or len(row.fields)
        num_rows += 1
        if not any(QUOTE in line for line in row.raw):
            continue
        num_marked += 1
        if row.fault or len(row.fields) != num_columns:
            bad += 1
        elif row.opens_quote(separator) and row.joins_rows(separator, num_columns=num_columns):
            joined += 1
        elif row.opens_quote(separator):
            good += 1
            needed += row.needs_quotes(separator)
    # Programs quote either what needs it or everything; people put marks where they like.
    is_written = not bad and (needed == good or num_marked == num_rows)
    if is_written and (needed or joined >= LEAST_JOINED):
        return Quoting.RFC4180
    if separator != TAB:
        return Quoting.RFC4180 if good else Quoting.DOUBTFUL
    is_quoted = needed > bad or (num_marked == num_rows and good > bad)
    return Quoting.DOUBTFUL if is_quoted else Quoting.NONE


def table_lines(path: Path, *, layout: TableLayout, quoting: Quoting) -> Iterator[TableLine]:
    """The rows of a table, blank lines left out, the first of them its header where it has one."""
    lines = _text_lines(path, encoding=layout.encoding)
    if quoting is Quoting.NONE:
        yield from _split_lines(lines, layout=layout)
    else:
        yield from _quoted_lines(lines, layout=layout)


def _split_lines(lines: Iterator[Line], *, layout: TableLayout) -> Iterator[TableLine]:
    for line in lines:
        text = line.text.rstrip("\r\n")
        if text or line.is_cut:
            fields = text.split(layout.separator)
            number = line.number
            yield TableLine(number, number, (text,), fields, _fault_of(line), line.is_cut)


def _quoted_lines(lines: Iterator[Line], *, layout: TableLayout) -> Iterator[TableLine]:
    """Rows as RFC 4180 has them; a mark out of place costs the lines up to where it is seen."""
    # One limit for the whole process: a field is as long as its line, and lines have a limit.
    csv.field_size_limit(text_files.MAX_LINE_CHARS)
    taken: list[Line] = []

    def feed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line.text

    reader = csv.reader(
        feed(), delimiter=layout.separator, skipinitialspace=layout.skips_blanks, strict=True
    )
    while True:
        taken.clear()
        fields: list[str] = []
        fault = ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = f"a quotation mark out of place ({error}); `quoting: none` reads marks as text"
        fault = next(filter(None, map(_fault_of, taken)), fault)
        if fields or fault:
            is_cut = any(line.is_cut for line in taken)
            raw = tuple(line.text for line in taken)
            yield TableLine(taken[0].number, taken[-1].number, raw, fields, fault, is_cut)


def _fault_of(line: Line) -> str:
    return f"over {text_files.MAX_LINE_CHARS:,} characters" if line.is_cut else ""


def _text_lines(path: Path, *, encoding: str) -> Iterator[Line]:
    """The lines with their ends, but for the one that tells Excel the separator."""
    for line in bounded_lines(path, encoding=encoding, newline=""):
        if line.number > 1 or not _separator_hint(line.text):
            yield line


def _separator_hint(text: str) -> str:
    text = text.strip('\r\n "').lower()
    return text[len(HINT) :] if text.startswith(HINT) and len(text) == len(HINT) + 1 else ""


def _read_hint(path: Path, *, encoding: str) -> str:
    line = next(bounded_lines(path, encoding=encoding, newline=""), None)
    return _separator_hint(line.text) if line else ""


def _cut_line(text: str, separator: str) -> tuple[str, ...]:
    """The fields of one line, by their marks where these are in place."""
    text = text.rstrip("\r\n")
    try:
        fields = next(csv.reader([text], delimiter=separator, strict=True), [])
    except csv.Error:
        fields = text.split(separator)
    return tuple(name.strip() for name in fields)
