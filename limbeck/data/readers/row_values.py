"""The values of one row, each checked as what it is used for; what fits nothing is a `RowError`."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.contracts.records import UNSCORED, Reason
from limbeck.data.readers.text_files import REPLACED

MISSING_FIELD = Reason("missing_field", "缺少字段", "missing field")
BROKEN_CONVERSATION = Reason("broken_conversation", "对话损坏", "broken conversation")
WRONG_TYPE = Reason("wrong_type", "类型错误", "wrong type")
IMAGES_NOT_READ = Reason("images_not_read", "未读取图像", "images not read")
BAD_CONFIDENCE = Reason("bad_confidence", "置信度无效", "invalid confidence")
SURROGATE = re.compile("[\ud800-\udfff]")
PATH_SIGN = "."
"""Between the names of objects inside each other, and the places in lists: `turns.0.text`."""
NOTHING = object()
"""Stands where a path leads to no value."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its place, and its values by column."""

    place: str
    values: JsonMapping


class RowError(Exception):
    """A row that cannot become a record: why. Never leaves the readers."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason.key)
        self.reason = reason
        self.detail = detail


def find_undecodable(value: object) -> str:
    """A text in a value, however deep, that lost characters before it was read; '' without one."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, str):
            # Half a surrogate pair is no character, and cannot be written again.
            if REPLACED in found or (not found.isascii() and SURROGATE.search(found)):
                return found
        elif isinstance(found, Mapping):
            rest += [*found, *found.values()]
        elif isinstance(found, Sequence) and not isinstance(found, bytes):
            rest += found
    return ""


def add_paths(values: JsonMapping, names: Iterable[str]) -> JsonMapping:
    """The values with those that names of the form `ticket.subject` or `answers.0` have inside
    objects and lists.
    """
    found: dict[str, Json] = {}
    for name in names:
        if PATH_SIGN not in name or name in values:
            continue
        steps = list(_steps(values, name))
        if steps[-1].value is not NOTHING:
            found[name] = steps[-1].value
    return {**values, **found} if found else values


def is_read(name: str, *, names: Iterable[str]) -> bool:
    """Whether some names are that of a column, or lead into it."""
    return any(other == name or other.startswith(f"{name}{PATH_SIGN}") for other in names)


def further_items(values: JsonMapping, path: str) -> Iterator[str]:
    """The paths of the items that follow those of which a path names one."""
    # A path that was added to a row stands there as a column of its own.
    for step in _steps({name: values[name] for name in values if name != path}, path):
        if isinstance(step.holder, list) and step.value is not NOTHING:
            number = int(step.key) + 1
            if number < len(step.holder):
                yield f"{step.above}{number}"


class _Step(NamedTuple):
    """One step of a path: from a holder to one of its values."""

    above: str
    """The path up to the holder."""
    holder: Json
    key: str
    value: Json


def _steps(values: JsonMapping, path: str) -> Iterator[_Step]:
    """The steps of a path, up to one that leads to nothing; a key may hold the sign itself."""
    holder: Json = values
    above, rest = "", path.split(PATH_SIGN)
    while rest:
        value, num_parts = NOTHING, 1
        if isinstance(holder, list) and rest[0].isdecimal() and int(rest[0]) < len(holder):
            value = holder[int(rest[0])]
        elif isinstance(holder, Mapping):
            keys = ((PATH_SIGN.join(rest[:n]), n) for n in range(len(rest), 0, -1))
            key, num_parts = next((pair for pair in keys if pair[0] in holder), (rest[0], 1))
            value = holder.get(key, NOTHING)
        key = PATH_SIGN.join(rest[:num_parts])
        yield _Step(above, holder, key, value)
        if value is NOTHING:
            return
        above, rest, holder = f"{above}{key}{PATH_SIGN}", rest[num_parts:], value


def path_names(values: JsonMapping, *, start: str = "") -> Iterator[str]:
    """The names of all values that are no objects, those inside objects and of the first items of
    lists with their path.
    """
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from path_names(value, start=f"{start}{name}{PATH_SIGN}")
            continue
        yield f"{start}{name}"
        if isinstance(value, list) and value:
            yield from path_names({"0": value[0]}, start=f"{start}{name}{PATH_SIGN}")


def is_missing(value: object) -> bool:
    """Whether a value stands for none, as a table writes it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_text(values: JsonMapping, name: str) -> str:
    """The text of a column as it stands; '' where there is none, or only blanks."""
    value = values.get(name)
    if is_missing(value):
        return ""
    infinite = isinstance(value, float) and math.isinf(value)
    if isinstance(value, bool) or infinite or not isinstance(value, str | int | float):
        found = value if infinite else type(value).__name__
        raise RowError(WRONG_TYPE, f"{name!r} is {found}, expected text")
    text = str(value)
    return text if text.strip() else ""


def require_text(values: JsonMapping, *names: str) -> str:
    """The texts of columns, joined; one of them must hold something."""
    texts = [text for name in names if (text := read_text(values, name))]
    if not texts:
        found = ", ".join(map(str, values)) or "nothing"
        detail = f"nothing in {' or '.join(map(repr, names))}; the row has {found}"
        raise RowError(MISSING_FIELD, detail)
    return " ".join(texts)


def read_confidence(value: object) -> float:
    """A confidence between 0 and 1; `UNSCORED` where there is none."""
    if is_missing(value) or value == "":
        return UNSCORED
    try:
        number = float(str(value).strip().rstrip("%"))
    except ValueError:
        raise RowError(BAD_CONFIDENCE, f"{value!r} is no number") from None
    number = number / 100 if 1 < number <= 100 else number
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise RowError(BAD_CONFIDENCE, f"{value!r} lies outside 0 to 1")
    return number
