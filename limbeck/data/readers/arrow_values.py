"""Values of Arrow's types as JSON has them: what a column says, and nothing that storage added.

Numbers of 16 and 32 bits are as short as before they were stored (0.9, not 0.8999999761581421),
decimals keep their digits, dates and times are in ISO 8601, bytes that are UTF-8 are text, and
labels have the names that `datasets` stores beside their numbers. Left out: what a text is for.
"""

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

import numpy as np
import pyarrow
from pyarrow import types

from limbeck.contracts.json_data import Json, JsonObject

FEATURES_KEY = b"huggingface"
LABEL = "ClassLabel"
IMAGE_PARTS = {"bytes", "path"}
"""How `datasets` stores an image in a cell, whose bytes are no text."""
SECONDS = 3600, 60, 1
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def read_features(schema: pyarrow.Schema) -> JsonObject:
    """What `datasets` stores of a file's columns; empty where another program wrote the file."""
    try:
        stored = json.loads((schema.metadata or {}).get(FEATURES_KEY, b"{}"))
        found = stored["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def label_names(features: JsonObject) -> JsonObject:
    """The names of labels by column, for the columns that hold labels."""
    found = {name: _find_names(feature) for name, feature in features.items()}
    return {name: names for name, names in found.items() if names}


def plain_values(column: pyarrow.Array, *, feature: Json = None) -> list[Json]:
    """The values of a column.

    Raises:
        ValueError: a label has a number without a name.
        pyarrow.ArrowException, ValueError, OverflowError: a value is none that Python has.
    """
    if column.type == pyarrow.time64("ns"):
        column = column.cast(
            pyarrow.time64("us")
        )  # Python's times are no finer; a loss is an error
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        if not (types.is_string(column.type) or types.is_large_string(column.type)):
            raise
        content = column.cast(pyarrow.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="replace") for value in content]
    if not (_is_changed(column.type) or _find_names(feature)):
        return values
    return [plain_value(value, column.type, feature=feature) for value in values]


def plain_value(value: Json, kind: pyarrow.DataType, *, feature: Json = None) -> Json:
    """A value of a type, however deep its parts are.

    Raises:
        ValueError: a label has a number without a name.
    """
    if value is None:
        return None
    if isinstance(feature, Mapping) and feature.get("_type") == LABEL and isinstance(value, int):
        return _name_of(value, names=feature["names"])
    if types.is_dictionary(kind):
        return plain_value(value, kind.value_type, feature=feature)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _inner(feature)
        return [plain_value(item, kind.value_type, feature=inner) for item in value]
    if types.is_struct(kind):
        if {field.name for field in kind} == IMAGE_PARTS:
            return value
        inner = feature if isinstance(feature, Mapping) else {}
        return {
            field.name: plain_value(value[field.name], field.type, feature=inner.get(field.name))
            for field in kind
        }
    short = _short_type(kind)
    return float(str(short(value))) if short else _as_json(value)


def _as_json(value: object) -> Json:
    match value:
        case Decimal():
            return format(value, "f")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return _write_duration(value)
        case bytes():
            return _as_text(value)
    return value


def _as_text(content: bytes) -> Json:
    """The text that bytes are in UTF-8; the bytes where they are none."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content
    return content if CONTROLS.search(text) else text


def _write_duration(value: datetime.timedelta) -> str:
    """A duration in ISO 8601, such as P1DT2H30M."""
    rest = abs(value)
    total = Decimal(rest.seconds) + Decimal(rest.microseconds) / 1_000_000
    written = ""
    for unit, name in zip(SECONDS, "HMS", strict=True):
        count, total = (total, Decimal(0)) if unit == 1 else divmod(total, unit)
        written += f"{count.normalize():f}{name}" if count else ""
    days = f"{rest.days}D" if rest.days else ""
    text = f"P{days}T{written}" if written else f"P{days}" if days else "PT0S"
    return f"-{text}" if value.days < 0 else text


def _name_of(number: int, *, names: list[str]) -> str | None:
    if number < 0:  # -1 stands for a label that is not known
        return None
    if number >= len(names):
        raise ValueError(
            f"holds the label {number}, and its features name 0 to {len(names) - 1} alone "
            f"({', '.join(names[:4])}, ...); write it again with the names of all labels"
        )
    return names[number]


def _find_names(feature: Json) -> list[str]:
    """The names of the labels that a column holds, by itself or in lists or objects."""
    rest = [feature]
    while rest:
        found = rest.pop()
        if isinstance(found, list):
            rest += found
        elif isinstance(found, Mapping):
            if found.get("_type") == LABEL:
                return found.get("names") or []
            rest += found.values()
    return []


def _inner(feature: Json) -> Json:
    """What is stored of a list's items."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, Mapping) else None


def _is_changed(kind: pyarrow.DataType) -> bool:
    """Whether values of a type are, or hold, what JSON does not have, or has otherwise."""
    tests = (types.is_temporal, types.is_decimal, _is_bytes, _short_type)
    return any(test(kind) for test in tests) or any(map(_is_changed, _parts(kind)))


def _is_bytes(kind: pyarrow.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _parts(kind: pyarrow.DataType) -> Iterator[pyarrow.DataType]:
    if types.is_dictionary(kind):
        yield kind.value_type
    for place in range(kind.num_fields):
        yield kind.field(place).type


def _short_type(kind: pyarrow.DataType) -> type[np.floating] | None:
    if types.is_float16(kind):
        return np.float16
    return np.float32 if types.is_float32(kind) else None
