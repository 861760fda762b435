"""The values of one row, each checked as what it is used for; what fits nothing is a `RowError`."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
        *_, (_, _, value) = _steps(values, name)
        if value is not NOTHING:
            found[name] = value
    return {**values, **found} if found else values


def _steps(values: JsonMapping, path: str) -> Iterator[tuple[str, Json, Json]]:
    """What stands before each part of a path, the part's holder and its value."""
    holder: Json = values
    above = ""
    for part in path.split(PATH_SIGN):
        value: Json = NOTHING
        if isinstance(holder, Mapping):
            value = holder.get(part, NOTHING)
        elif isinstance(holder, list) and part.isdecimal() and int(part) < len(holder):
            value = holder[int(part)]
        yield above, holder, value
        above += part + PATH_SIGN
        holder = value


def further_items(values: JsonMapping, path: str) -> Iterator[str]:
    """The paths of the items that follow those of which a path names one."""
    for (above, holder, _), part in zip(_steps(values, path), path.split(PATH_SIGN), strict=True):
        if isinstance(holder, list) and part.isdecimal() and int(part) + 1 < len(holder):
            yield f"{above}{int(part) + 1}"


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
