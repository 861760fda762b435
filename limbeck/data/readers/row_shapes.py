"""The shapes in which data sets write a row, and the conversation that a row of each shape is.

The first shape that a row's columns fit is taken. Named columns that the recipe sets come before
all others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.data.filters.dedup import EQUAL_SIDES
from limbeck.data.readers.messages import (
    ASSISTANT,
    SYSTEM,
    USER,
    CheckedMessage,
    Conversation,
    Turn,
    join_messages,
    read_messages,
)
from limbeck.data.readers.options import (
    OptionNumbers,
    check_answer,
    check_counted,
    read_options,
    write_question,
)
from limbeck.data.readers.rejected_rows import check_desirable
from limbeck.data.readers.row_pairs import (
    ALPACA_QUESTION,
    CHAT_KEYS,
    OPENAI_PAIR,
    as_messages,
    as_prompt,
    read_pair,
    rename_openai_pair,
    train_last,
)
from limbeck.data.readers.row_values import (
    BROKEN_CONVERSATION,
    MISSING_FIELD,
    RowError,
    is_missing,
    read_text,
    require_text,
)
from limbeck.data.readers.transcripts import read_prompt, read_transcript

NO_INPUT = "<noinput>"
"""What Self-Instruct writes for an input that is not there."""
SYSTEM_KEYS = ("system_prompt", "system_message")
"""Other names of the column of instructions."""

RowShape = Literal["", "columns", "chat", "pair", "alpaca", "completion", "label", "text"]
"""How a row is read; '' where nothing says how."""
ONE_ANSWER: tuple[RowShape, ...] = ("columns", "chat", "alpaca", "completion")
"""Shapes whose answer may be marked as a bad one."""


class Columns(Config):
    """Which columns hold what; a row in a known shape needs none of them."""

    question: Annotated[tuple[str, ...], Field(min_length=1)] = ("question",)
    """One column, or several whose texts are joined."""
    answer: str = "answer"
    system: str = "system"
    """Instructions that stand before the question; the column may be absent."""
    department: str = "department"
    """The specialty in the source's own words; the column may be absent."""
    rejected: str = "rejected"
    """A worse answer, where preferences are to be learnt; the column may be absent."""
    confidence: str = "confidence"
    """A number between 0 and 1, or a percentage; the column may be absent."""
    images: str = "images"
    """Paths of the images that the question is about, one or a list; the column may be absent."""
    options: tuple[str, ...] = ()
    """Where the options of multiple-choice questions stand: one column that holds all of them, or
    one for each. They follow the question, each with its letter or its own label."""
    option_numbers: OptionNumbers = "none"
    """`from_0`, `from_1`: the answer is the number of an option, counted so; its label is learnt.
    `none`: the answer is a label or a text of an option."""

    @model_validator(mode="after")
    def _check_options(self) -> "Columns":
        if self.option_numbers != "none" and not self.options:
            raise ValueError(
                f"option_numbers: {self.option_numbers} counts options, and `options` names none; "
                "name their columns, or leave it out"
            )
        return self

    def are_named(self) -> bool:
        """Whether the recipe says which columns hold the question and the answer."""
        return bool(self.options or self.changed_names() & {*self.question, self.answer})

    def changed_names(self) -> set[str]:
        """The columns that the recipe names otherwise than by default."""
        default = Columns()
        names = {*self.all_names()}
        return names - {default.answer, *default.question, *default.optional_names(), ""}

    def all_names(self) -> tuple[str, ...]:
        """Every column that is read."""
        return *self.question, self.answer, *self.options, *self.optional_names()

    def optional_names(self) -> tuple[str, ...]:
        """The columns that rows may lack."""
        return self.system, self.department, self.rejected, self.confidence, self.images


def find_shape(columns: Columns, *, present: Collection[str]) -> RowShape:
    """How a row with these columns is read."""
    named = columns.answer in present or any(name in present for name in columns.question)
    if named and columns.are_named():
        return "columns"
    if "chosen" in present and "rejected" in present:
        return "pair"
    if any(key in present for key in CHAT_KEYS):
        return "chat"
    if "instruction" in present and "output" in present:
        return "alpaca"
    if named:
        return "columns"
    if "prompt" in present and "completion" in present:
        return "completion"
    if "text" in present:
        return "label" if "label" in present else "text"
    return ""


def read_row(values: JsonMapping, columns: Columns) -> Conversation:
    """The conversation of a row, in whichever shape it is."""
    if all(isinstance(values.get(name), Mapping | list) for name in OPENAI_PAIR):
        values = rename_openai_pair(values)
    present = [name for name, value in values.items() if not is_missing(value)]
    shape = find_shape(columns, present=present)
    if shape in ("text", "label") and shape != find_shape(columns, present=values.keys()):
        # What such a row lacks stands in others: it is a cut row, not one of another shape.
        empty = ", ".join(name for name, value in values.items() if is_missing(value))
        raise RowError(MISSING_FIELD, f"nothing in {empty}")
    if shape in ONE_ANSWER:
        check_desirable(values, beside=columns.all_names())
    match shape:
        case "chat":
            found = _read_chat(values)
        case "pair":
            found = read_pair(values, questions=columns.question)
        case "alpaca":
            found = _read_alpaca(values)
        case "completion":
            found = _read_completion(values)
        case "label":
            label = read_text(values, "label").strip()
            if not label:
                raise RowError(MISSING_FIELD, "nothing in 'label'")
            found = Conversation((Turn(require_text(values, "text"), label),))
        case "text":
            text = require_text(values, "text")
            messages = read_transcript(text)
            found = join_messages(messages) if messages else Conversation((Turn("", text),))
        case _:
            found = _read_columns(values, columns)
    return _add_columns(found, values, columns)


def _read_columns(values: JsonMapping, columns: Columns) -> Conversation:
    question, answer = require_text(values, *columns.question), require_text(values, columns.answer)
    if columns.options:
        options = read_options(values, columns.options)
        if columns.option_numbers == "none":
            check_counted(values[columns.answer], options)
        answer = check_answer(answer, options, numbers=columns.option_numbers)
        question = write_question(question, options)
    history = values.get("history")
    # A text of this name is a column like any other, such as a patient's history.
    earlier = _read_history(history) if isinstance(history, list) else []
    return join_messages([*earlier, *read_prompt(question), CheckedMessage(ASSISTANT, answer)])


def _read_alpaca(values: JsonMapping) -> Conversation:
    if read_text(values, "input").strip() == NO_INPUT:
        values = {**values, "input": ""}
    question, answer = require_text(values, *ALPACA_QUESTION), require_text(values, "output")
    earlier = _read_history(values.get("history"))
    return join_messages([*earlier, *read_prompt(question), CheckedMessage(ASSISTANT, answer)])


def _read_history(history: Json) -> list[CheckedMessage]:
    """The earlier turns: pairs of texts, or messages.

    The first pair may lack its question: a chat's greeting.
    """
    if is_missing(history) or history == "":
        return []
    if not isinstance(history, list):
        raise RowError(BROKEN_CONVERSATION, f"'history' is not a list: {str(history)[:80]!r}")
    found: list[CheckedMessage] = []
    for number, pair in enumerate(history):
        if isinstance(pair, Mapping):
            return read_messages(history, key="history")
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise RowError(BROKEN_CONVERSATION, f"'history' is not pairs: {str(pair)[:80]!r}")
        for role, text in zip((USER, ASSISTANT), pair, strict=True):
            if number == 0 and role == USER and (is_missing(text) or text == ""):
                continue
            if not isinstance(text, str) or not text.strip():
                detail = f"no text in pair {number + 1} of 'history': {str(pair)[:80]!r}"
                raise RowError(BROKEN_CONVERSATION, detail)
            found.append(CheckedMessage(role, text))
    return found


def _read_chat(values: JsonMapping) -> Conversation:
    key = next(key for key in CHAT_KEYS if not is_missing(values.get(key)))
    return join_messages(read_messages(values[key], key=key))


def _read_completion(values: JsonMapping) -> Conversation:
    messages = [*as_prompt(values), *as_messages(values["completion"])]
    return train_last(join_messages(messages))


def _add_columns(found: Conversation, values: JsonMapping, columns: Columns) -> Conversation:
    """The conversation with the instructions and the worse answer that stand in columns."""
    names = (columns.system, *(SYSTEM_KEYS if columns.system == SYSTEM else ()))
    for text in filter(None, (read_text(values, name) for name in names)):
        if found.system not in ("", text):
            raise RowError(BROKEN_CONVERSATION, f"two instructions, one is {text[:60]!r}")
        found = replace(found, system=text)
    if found.system and not found.turns[-1].question:
        raise RowError(BROKEN_CONVERSATION, "instructions before plain text")
    found = replace(found, rejected=found.rejected or read_text(values, columns.rejected))
    if found.rejected and found.rejected.strip() == found.turns[-1].answer.strip():
        raise RowError(EQUAL_SIDES, found.rejected[:80])
    return found
