"""Multiple-choice questions: how rows hold their options, and the question that names them.

A row has a column for each option, or one column that holds all of them: a list, an object of
labels and texts, lists of both, or lines of text. An answer is a label, several, an option's text,
or its number. Left out: which columns these are.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Literal

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.contracts.records import Reason
from limbeck.data.readers.json_text import parse_json
from limbeck.data.readers.row_values import RowError, is_missing, read_text

OPTIONS_NOT_READ = Reason("options_not_read", "选项无法读取", "options not read")
NOT_AN_OPTION = Reason("not_an_option", "答案不在选项中", "answer is no option")
OptionNumbers = Literal["none", "from_0", "from_1"]
"""Whether answers are numbers of options, and that of the first one."""
LABELS = string.ascii_uppercase
LABEL_KEYS = ("label", "id", "key")
TEXT_KEYS = ("text", "value", "content")
SIGN = r"[)）.．、,，:：\s]"
"""Stands between an option's label and its text."""
LINE = re.compile(rf"\s*[(（]?([A-Z]){SIGN}\s*(.*\S)", re.DOTALL)
"""An option in a line of its own, such as `A. fever`."""
MARKS = (
    re.compile(rf"^[ \t]*[(（]?([A-Za-z])[ \t]?{SIGN}\s*", re.MULTILINE),
    re.compile(r"(?:\A|(?<=[\s,，;；]))[(（]?([A-Za-z])\s?[)）.．、:：]\s*"),
)
"""The labels of options in one text: each at the start of a line, or behind the one before."""
AROUND = "()（）[].。:：、 "
"""May stand around the label of an answer."""
NUMBER = re.compile(r"(\d+)(?:\.0+)?")
BETWEEN = re.compile(r"[\s,，、;；/&+]+")
"""What stands between the labels of several right options, if anything does."""


def read_options(values: JsonMapping, names: Sequence[str]) -> dict[str, str]:
    """The texts of a row's options by their labels, at least two, in their order.

    Raises:
        RowError: the columns hold none, or hold something else.
    """
    if len(names) > 1:
        found = _label([read_text(values, name) for name in names])
    else:
        found = _read_all(values.get(names[0]))
    found = {label: text for label, text in found.items() if text.strip()}
    if len(found) < 2:
        detail = (
            f"no two options in {', '.join(map(repr, names))}: {str(values.get(names[0]))[:60]}"
        )
        raise RowError(OPTIONS_NOT_READ, detail)
    return found


def write_question(question: str, options: Mapping[str, str]) -> str:
    """The question, and each option in a line below it; the question alone where it names them."""
    named = (rf"\b{re.escape(label)}{SIGN}\s*{re.escape(text)}" for label, text in options.items())
    if all(re.search(pattern, question) for pattern in named):
        return question
    return "\n".join([question, *(f"{label}. {text}" for label, text in options.items())])


def check_answer(answer: str, options: Mapping[str, str], *, numbers: OptionNumbers) -> str:
    """The answer as it stands, or the label of the option that it names or counts.

    Raises:
        RowError: it is no option.
    """
    text = answer.strip()
    if numbers == "none" and text not in options and _is_text(text, options):
        return answer
    if numbers != "none":
        number = NUMBER.fullmatch(text)
        place = int(number[1]) - (numbers == "from_1") if number else -1
        label = LABELS[place] if 0 <= place < len(LABELS) else ""
    else:
        label = text.strip(AROUND).upper()
    if label in options:
        return label
    if numbers == "none" and _are_labels(text, options):
        return answer
    detail = f"{text[:40]!r} is none of {', '.join(options)}, and no text of theirs"
    raise RowError(NOT_AN_OPTION, detail)


def check_counted(value: Json, options: Mapping[str, str]) -> None:
    """Refuse a number that may count options, where nothing says from which one.

    Raises:
        RowError: it may.
    """
    if isinstance(value, int | float) and str(value) not in options:
        detail = f"{value} is no label; if it counts the options, set `option_numbers`"
        raise RowError(NOT_AN_OPTION, detail)


def _is_text(answer: str, options: Mapping[str, str]) -> bool:
    """Whether an answer is the text of an option, by itself or behind its label."""
    line = LINE.fullmatch(answer)
    return answer in map(str.strip, options.values()) or (
        line is not None and options.get(line[1], "").strip() == line[2]
    )


def _are_labels(answer: str, options: Mapping[str, str]) -> bool:
    parts = [part for part in BETWEEN.split(answer) if part]
    return all(part in options for part in (parts[0] if len(parts) == 1 else parts))


def _label(texts: Sequence[str]) -> dict[str, str]:
    if len(texts) > len(LABELS):
        raise RowError(OPTIONS_NOT_READ, f"{len(texts)} options; {len(LABELS)} have a letter")
    lines = [LINE.fullmatch(text) for text in texts]
    if all(line and line[1] == label for line, label in zip(lines, LABELS, strict=False)):
        texts = [line[2] for line in lines if line]
    return dict(zip(LABELS, texts, strict=False))


def _read_all(value: Json) -> dict[str, str]:
    """The options that one column holds."""
    if isinstance(value, str):
        return _read_text(value)
    if isinstance(value, Mapping):
        texts, labels = value.get("text"), value.get("label")
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            found = (read_text({"": text}, "") for text in texts)
            return dict(zip(map(str, labels), found, strict=True))
        return {label: read_text(value, label) for label in value}
    if not isinstance(value, Sequence):
        return {}
    if all(isinstance(item, Mapping) for item in value):
        return dict(pair for item in value if (pair := _read_object(item)))
    return _label([read_text({"": item}, "") for item in value])


def _read_object(item: JsonMapping) -> tuple[str, str] | None:
    label, text = (
        next((read_text(item, key) for key in keys if not is_missing(item.get(key))), "")
        for keys in (LABEL_KEYS, TEXT_KEYS)
    )
    return (label, text) if label else None


def _read_text(text: str) -> dict[str, str]:
    """Options as JSON in a text, or each behind its label, in a line of its own or not."""
    if text.lstrip().startswith(("[", "{")):
        try:
            return _read_all(parse_json(text))
        except ValueError:
            return {}
    found = (_cut_at(text.strip(), mark) for mark in MARKS)
    return next((options for options in found if len(options) > 1), {})


def _cut_at(text: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """The parts of a text behind the labels A, B, C and so on, the first of which begins it."""
    marks: list[re.Match[str]] = []
    for mark in pattern.finditer(text):
        if len(marks) < len(LABELS) and mark[1].upper() == LABELS[len(marks)]:
            marks.append(mark)
    if not marks or marks[0].start():
        return {}
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    parts = (text[mark.end() : end] for mark, end in zip(marks, ends, strict=True))
    return dict(zip(LABELS, (part.strip(" \t\r\n,，;；") for part in parts), strict=False))
