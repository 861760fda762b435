"""What belongs to a file's questions and stands in columns of its own: the options of multiple
choice, and the text that a question is about.

Likely columns are tried on the whole file, and left to the user where few of its rows fit.
"""

from collections.abc import Iterator

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.data.readers.column_names import guess_context, guess_options, quote
from limbeck.data.readers.row_shapes import Columns
from limbeck.drafting.findings import FileFindings, read_findings
from limbeck.drafting.sources import open_source

NOT_READ = "columns_not_read"
LEAST_FITTING_RATIO = 0.95
"""Share of the rows that must have options, and an answer among them."""
INPUTS = ("input", "输入")
"""Follow their instruction, as in Alpaca; other texts stand before their question."""
NUMBERS = ("none", "from_0", "from_1")


def find_parts(
    source: JsonObject, findings: FileFindings, *, with_context: bool
) -> tuple[JsonObject, FileFindings, list[str]]:
    """The source that reads these columns too, what it then holds, and what was found, in words.

    Raises:
        DataError: answers are numbers of options, and may count from 0 or from 1.
    """
    notes: list[str] = []
    context = guess_context(_list_unread(findings)) if with_context else ""
    if context:
        columns = _columns_of(source)
        question = [context, *columns.question]
        if context.strip().lower() in INPUTS:
            question.reverse()
        candidate = _with_columns(source, {"question": question, "answer": columns.answer})
        found = _try(candidate, context)
        if found is not None and len(found.records) >= len(findings.records):
            source, findings = candidate, found
            notes.append(f"took {context!r} as a part of the question; --question names others")
    options = guess_options(_list_unread(findings))
    if options:
        fitting = list(_fitting(source, options, num_rows=len(findings.records)))
        if len(fitting) > 1 and fitting[0][0]["columns"].get("option_numbers"):
            raise DataError(
                f"its answers are numbers of the options in {quote(options)}, and may count them "
                "from 0 or from 1; write letters into the file, or set `options` and "
                "`option_numbers` in a recipe of your own",
                path=source["name"],
            )
        if fitting:
            source, findings = fitting[0]
            notes.append(f"took {quote(options)} for the options of the question")
        else:
            notes.append(
                f"left out {quote(options)}: few rows have several options there and an answer "
                "among them; if these are options, the questions stand without them"
            )
    return source, findings, notes


def _fitting(
    source: JsonObject, options: tuple[str, ...], *, num_rows: int
) -> Iterator[tuple[JsonObject, FileFindings]]:
    """The ways to read the options in which nearly all rows have an answer among them."""
    for numbers in NUMBERS:
        columns: JsonObject = {"options": list(options)}
        columns |= {} if numbers == "none" else {"option_numbers": numbers}
        candidate = _with_columns(source, columns)
        found = _try(candidate, options[0])
        if found is None or len(found.records) < LEAST_FITTING_RATIO * num_rows:
            continue
        yield candidate, found
        if numbers == "none":
            return


def _try(source: JsonObject, column: str) -> FileFindings | None:
    """What a source holds that reads a column; None where no row can be read so."""
    try:
        found = read_findings(open_source(source))
    except DataError:
        return None
    return None if column in _list_unread(found) else found


def _list_unread(findings: FileFindings) -> list[str]:
    unread = findings.notes.get(NOT_READ)
    return [name for names in unread.values() for name in names] if isinstance(unread, dict) else []


def _columns_of(source: JsonObject) -> Columns:
    return Columns.model_validate(source.get("columns", {}))


def _with_columns(source: JsonObject, columns: JsonObject) -> JsonObject:
    return source | {"columns": {**source.get("columns", {}), **columns}}
