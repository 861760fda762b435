"""Which columns of a row, and keys of its messages, no reader reads: named, since a context that is
left out, or a mark of what not to learn, is missed only later.
"""

from collections.abc import Collection, Iterator, Mapping

from limbeck.contracts.json_data import JsonMapping
from limbeck.data.readers.messages import (
    MESSAGE_KEYS,
    REASONING_KEYS,
    ROW_WEIGHTS,
    TOOL_KEYS,
)
from limbeck.data.readers.rejected_rows import DESIRABLE, is_mark
from limbeck.data.readers.row_pairs import CHAT_KEYS, OPENAI_PAIR
from limbeck.data.readers.row_shapes import (
    ONE_ANSWER,
    SYSTEM_KEYS,
    Columns,
    RowShape,
    find_shape,
)
from limbeck.data.readers.row_values import PATH_SIGN, further_items, is_missing, is_read

SHAPE_COLUMNS: Mapping[RowShape, tuple[str, ...]] = {
    "columns": ("history",),
    "chat": TOOL_KEYS,
    "pair": ("chosen", "rejected", "prompt", "instruction", "input", *CHAT_KEYS, *TOOL_KEYS),
    "alpaca": ("instruction", "input", "output", "history"),
    "completion": ("prompt", "completion"),
    "label": ("text", "label"),
    "text": ("text",),
}
"""What a row of each shape reads besides the columns that the recipe names."""


def unread_names(values: JsonMapping, columns: Columns) -> Iterator[str]:
    """The columns of a row that hold something and are not read; a key of messages with a path."""
    present = [name for name, value in values.items() if not is_missing(value)]
    if all(name in present for name in OPENAI_PAIR):
        read, shape = {*OPENAI_PAIR}, "pair"
    else:
        shape = find_shape(columns, present=present)
        read = {*SHAPE_COLUMNS.get(shape, ())}
        if shape in ("columns", "pair"):
            read |= {*columns.question, columns.answer, *columns.options}
        if shape == "chat":
            read.add(next(key for key in CHAT_KEYS if key in present))
    if shape in ONE_ANSWER:
        read |= {name for name in DESIRABLE if is_mark(values.get(name))}
    read |= {*columns.optional_names(), *SYSTEM_KEYS, *ROW_WEIGHTS}
    for name in (*columns.question, columns.answer):
        if name in values:
            yield from (path for path in further_items(values, name) if path not in read)
    parents = {name for name in present if name not in read and is_read(name, names=read)}
    for name in present:
        if name in parents and isinstance(values[name], Mapping):
            yield from _unread_parts(values[name], start=f"{name}{PATH_SIGN}", read=read)
        elif name not in read and name not in parents:
            yield name
        elif name not in columns.options and isinstance(found := values[name], list):
            for message in found:
                yield from _unread_keys(message, name=name)


def _unread_parts(values: JsonMapping, *, start: str, read: Collection[str]) -> Iterator[str]:
    """The paths of what an object holds beside what is read of it."""
    for name, value in values.items():
        path = f"{start}{name}"
        if path not in read and is_read(path, names=read):
            if isinstance(value, Mapping):
                yield from _unread_parts(value, start=f"{path}{PATH_SIGN}", read=read)
        elif path not in read and not is_missing(value):
            yield path


def _unread_keys(message: object, *, name: str) -> Iterator[str]:
    if isinstance(message, Mapping) and not MESSAGE_KEYS.isdisjoint(message):
        known = MESSAGE_KEYS.union(TOOL_KEYS, REASONING_KEYS)
        for key, value in message.items():
            if key not in known and not is_missing(value):
                yield f"{name}{PATH_SIGN}{key}"
