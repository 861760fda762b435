"""Answers that are lists or objects: written as JSON, and scored by their items.

A file gives them as values of JSON, as a text that holds JSON, or as a text whose items stand
between separators. Left out: what an item means, and where it stands in the question.
"""

from collections.abc import Mapping, Sequence

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.contracts.records import Reason
from limbeck.data.readers.json_text import parse_json, write_json
from limbeck.data.readers.row_shapes import Columns, find_shape
from limbeck.data.readers.row_values import RowError, is_missing

NOT_A_LIST = Reason("not_a_list", "答案不是列表", "answer is no list")
SPAN_WITHOUT_TEXT = Reason("span_without_text", "片段缺少文本", "span without its text")
ANSWER_COLUMNS = {"alpaca": "output", "label": "label"}
"""Where answers stand in rows whose shape names the column."""
POSITIONS = frozenset(
    (
        *("start", "end", "begin", "offset", "length"),
        *("start_idx", "end_idx", "start_offset", "end_offset"),
    )
)
SPAN_KEYS = POSITIONS | {"label", "type", "tag", "id", "entity", "entity_type"}
"""What objects that mark a span say of it, its text aside."""


def write_list_values(values: JsonMapping, *, columns: Columns) -> JsonMapping:
    """The row, its answer as a text of JSON where it is a list or an object."""
    present = [name for name, value in values.items() if not is_missing(value)]
    shape = find_shape(columns, present=present)
    name = ANSWER_COLUMNS.get(shape, columns.answer if shape == "columns" else "")
    answer = values.get(name)
    if isinstance(answer, str) or not isinstance(answer, Mapping | Sequence):
        return values
    return {**values, name: write_json(answer)}


def as_list_answer(answer: str, *, separator: str) -> str:
    """The answer as JSON: as it stands where it is JSON, else the list of its items.

    Raises:
        RowError: it is neither, or marks spans without their texts.
    """
    try:
        found = parse_json(answer)
    except ValueError:
        found = None
    if isinstance(found, Mapping | list):
        _check_spans(found)
        return answer
    items = [item.strip() for item in answer.split(separator)] if separator else []
    if not any(items):
        raise RowError(NOT_A_LIST, answer)
    return write_json([item for item in items if item])


def _check_spans(value: Json) -> None:
    """Refuse spans that only say where they stand: a model reads no positions."""
    rest = [value]
    while rest:
        found = rest.pop()
        if isinstance(found, Mapping):
            if found.keys() & POSITIONS and found.keys() <= SPAN_KEYS:
                detail = f"{write_json(found)}: write the text of each span beside its position"
                raise RowError(SPAN_WITHOUT_TEXT, detail)
            rest += found.values()
        elif isinstance(found, list):
            if found and all(map(_is_place, found)):
                detail = f"{write_json(found[0])}: write the text of each span instead"
                raise RowError(SPAN_WITHOUT_TEXT, detail)
            rest += found


def _is_place(item: Json) -> bool:
    """Whether an item is a start, an end and a label, as doccano writes spans."""
    if not (isinstance(item, list) and len(item) == 3):
        return False
    start, end, label = item
    return type(start) is int and type(end) is int and 0 <= start < end and isinstance(label, str)
