"""Names for the labels of a file, where these are numbers or codes that say nothing to a reader."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import StringConstraints

from limbeck.contracts.leaks import to_compatible
from limbeck.contracts.records import Reason
from limbeck.data.readers.column_names import quote
from limbeck.data.readers.row_values import RowError

UNNAMED_LABEL = Reason("unnamed_label", "标签未命名", "label without a name")
LABEL_NAMES = "label_names"
"""The note of the names that a file stores for the numbers of labels, by column."""
LabelText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def read_numbers(names: object) -> object:
    """The mapping with texts for numbers: YAML reads `0:` as one, and files hold either.

    Raises:
        ValueError: a number and its text both have a name, or YAML read a text as a truth value.
    """
    if not isinstance(names, Mapping):
        return names
    if any(isinstance(text, bool) for item in names.items() for text in item):
        raise ValueError("YAML reads yes, no, true and false as truth values; put them in quotes")
    texts = {key: str(key) for key in names if type(key) in (int, float)}
    if twice := sorted(names.keys() & {*texts.values()}):
        raise ValueError(f"the label {twice[0]!r} has two names; give it one")
    return {texts.get(key, key): name for key, name in names.items()}


def check_distinct(names: Mapping[str, str]) -> Mapping[str, str]:
    """The mapping itself.

    Raises:
        ValueError: a score could not tell two of the names apart.
    """
    first: dict[str, str] = {}
    for label, name in names.items():
        same = first.setdefault(to_compatible(name).casefold(), label)
        if same != label:
            raise ValueError(
                f"{same!r} and {label!r} are both called {name!r}, and would be one label; give "
                "each a name of its own"
            )
    return names


def name_stored(names: Mapping[str, str], *, note: object, column: str) -> Mapping[str, str]:
    """The names by the labels that a file stores for its numbers, where they were given by number.

    The note is a reader's, of the stored labels by column.
    """
    stored = note.get(column, []) if isinstance(note, Mapping) else []
    if any(label in names for label in stored):
        return names
    return {label: names[str(n)] for n, label in enumerate(stored) if str(n) in names} or names


def name_label(label: str, *, names: Mapping[str, str]) -> str:
    """What a file's label is called: the label itself where no names are given.

    Raises:
        RowError: names are given, and none for this label.
    """
    if not names:
        return label
    if label not in names:
        raise RowError(UNNAMED_LABEL, f"{label!r} has no name in `labels`: {quote(names)}")
    return names[label]
