"""What a file's answers list: JSON, or items between separators that are found or named."""

from collections.abc import Sequence

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.data.readers.list_answers import NOT_A_LIST
from limbeck.drafting.findings import FileFindings, read_findings
from limbeck.drafting.sources import open_source

SEPARATORS = {"\n": "\\n", "\t": "\\t", **{sign: sign for sign in ";；、|,，"}}
"""What may stand between items, as it is named on the command line."""
LEAST_LIST_RATIO = 0.1
"""Share of the answers in which a separator must stand to be one."""
MOST_PLAIN_RATIO = 0.05
"""Share of the rows that may be no list in a file of lists."""


def read_lists(source: JsonObject, *, separator: str) -> tuple[JsonObject, FileFindings]:
    """The source that reads the answers as lists, and what it then holds.

    Raises:
        DataError: the answers are no lists, or several separators could stand between their items.
    """
    source = source | {"answers": "list"}
    if separator:
        named = {shown: sign for sign, shown in SEPARATORS.items()}
        source = source | {"item_separator": named.get(separator, separator)}
        return source, read_findings(open_source(source))
    try:
        found = read_findings(open_source(source))
    except DataError as error:
        if NOT_A_LIST.key not in str(error):
            raise
    else:
        if len(found.dropped.get(NOT_A_LIST.key, ())) <= MOST_PLAIN_RATIO * found.num_read:
            return source, found
    texts = read_findings(open_source(source | {"answers": "text"}))
    answers = [record.answer for record in texts.records]
    source = source | {"item_separator": find_separator(answers, name=source["name"])}
    return source, read_findings(open_source(source))


def find_separator(answers: Sequence[str], *, name: str) -> str:
    """The one separator that stands in the answers.

    Raises:
        DataError: none stands in enough of them, or several do.
    """
    counts = {sign: sum(sign in answer.strip() for answer in answers) for sign in SEPARATORS}
    found = {sign: n for sign, n in counts.items() if n >= max(1, LEAST_LIST_RATIO * len(answers))}
    if len(found) == 1:
        return next(iter(found))
    if found:
        shown = ", ".join(
            f"{SEPARATORS[sign]!r} in {count / len(answers):.0%}" for sign, count in found.items()
        )
        message = f"its answers hold several separators ({shown}); name the one between items"
    else:
        message = (
            "its answers are neither JSON nor lists; leave --task out, name another column with "
            "--answer, or name what stands between items"
        )
    raise DataError(f"{message} with --separator", path=name)
