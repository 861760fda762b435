"""The shapes in which data sets write a row, and the conversation that a row of each shape is.

The first shape that a row's columns fit is taken. Named columns that the recipe sets come before
all others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

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
    check_tools,
    join_messages,
    read_messages,
    read_prompt,
    read_transcript,
)
from limbeck.data.readers.options import (
    OptionNumbers,
    check_answer,
    check_counted,
    read_options,
    write_question,
)
from limbeck.data.readers.rejected_rows import check_desirable
from limbeck.data.readers.row_values import (
    BROKEN_CONVERSATION,
    MISSING_FIELD,
    WRONG_TYPE,
    RowError,
    is_missing,
    read_text,
)

CHAT_KEYS = ("conversations", "messages")
OPENAI_PAIR = ("input", "preferred_output", "non_preferred_output")
ALPACA_QUESTION = ("instruction", "input")
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
        values = _rename_openai_pair(values)
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
            found = _read_pair(values, columns)
        case "alpaca":
            found = _read_alpaca(values)
        case "completion":
            found = _read_completion(values)
        case "label":
            label = read_text(values, "label").strip()
            if not label:
                raise RowError(MISSING_FIELD, "nothing in 'label'")
            found = Conversation((Turn(_require(values, "text"), label),))
        case "text":
            text = _require(values, "text")
            messages = read_transcript(text)
            found = join_messages(messages) if messages else Conversation((Turn("", text),))
        case _:
            found = _read_columns(values, columns)
    return _add_columns(found, values, columns)


def _require(values: JsonMapping, *names: str) -> str:
    """The texts of columns, joined; one of them must hold something."""
    texts = [text for name in names if (text := read_text(values, name))]
    if not texts:
        found = ", ".join(map(str, values)) or "nothing"
        detail = f"nothing in {' or '.join(map(repr, names))}; the row has {found}"
        raise RowError(MISSING_FIELD, detail)
    return " ".join(texts)


def _rename_openai_pair(values: JsonMapping) -> JsonMapping:
    """A pair as OpenAI's preference training takes it, under the names of other pairs."""
    asked, chosen, rejected = (values[name] for name in OPENAI_PAIR)
    if not isinstance(asked, Mapping):
        raise RowError(BROKEN_CONVERSATION, "'input' is no object with 'messages'")
    check_tools(asked)
    rest = {name: value for name, value in values.items() if name not in OPENAI_PAIR}
    return {**rest, "prompt": asked.get("messages"), "chosen": chosen, "rejected": rejected}


def _read_columns(values: JsonMapping, columns: Columns) -> Conversation:
    question, answer = _require(values, *columns.question), _require(values, columns.answer)
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
    question, answer = _require(values, *ALPACA_QUESTION), _require(values, "output")
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
    messages = [*_as_prompt(values), *_as_messages(values["completion"])]
    return _train_last(join_messages(messages))


def _read_pair(values: JsonMapping, columns: Columns) -> Conversation:
    """A preference pair; its prompt stands in a column or in a chat, or begins both sides."""
    sides = [_as_messages(values[name]) for name in ("chosen", "rejected")]
    prompt = _as_prompt(values)
    if not prompt and all(side[0].role == ASSISTANT for side in sides):
        chat = next((key for key in CHAT_KEYS if not is_missing(values.get(key))), "")
        named = tuple(name for name in columns.question if not is_missing(values.get(name)))
        if chat:
            prompt = read_messages(values[chat], key=chat)
        else:
            prompt = [
                CheckedMessage(USER, _require(values, *(named or ("prompt", *ALPACA_QUESTION))))
            ]
    return _join_pair(prompt, *sides)


def _as_prompt(values: JsonMapping) -> list[CheckedMessage]:
    prompt = values.get("prompt")
    if is_missing(prompt) or prompt == "":
        return []
    if not isinstance(prompt, str):
        return _as_messages(prompt)
    return read_prompt(prompt)


def _as_messages(side: Json) -> list[CheckedMessage]:
    """An answer's messages: a text is one or a transcript, an object is one, a list is several."""
    if isinstance(side, str):
        if not side.strip():
            raise RowError(MISSING_FIELD, "an empty side of a pair")
        return read_transcript(side) or [CheckedMessage(ASSISTANT, side)]
    if not isinstance(side, Mapping | Sequence):
        raise RowError(WRONG_TYPE, f"a side is {type(side).__name__}, expected text or messages")
    return read_messages([side] if isinstance(side, Mapping) else side, key="chosen, rejected")


def _join_pair(
    prompt: list[CheckedMessage], chosen: list[CheckedMessage], rejected: list[CheckedMessage]
) -> Conversation:
    """A conversation, only the last answer of which is learnt, and that answer's worse one."""
    sides = [_after_prompt(prompt, side) for side in (chosen, rejected)]
    earlier = [[(message.role, message.text) for message in side[:-1]] for side in sides]
    if earlier[0] != earlier[1]:
        raise RowError(BROKEN_CONVERSATION, "the two sides differ before their last answers")
    better, worse = map(join_messages, sides)
    return _train_last(better, rejected=worse.turns[-1].answer)


def _after_prompt(prompt: list[CheckedMessage], side: list[CheckedMessage]) -> list[CheckedMessage]:
    """The whole conversation of a side, which may repeat the prompt."""
    if not prompt or side[0].role == ASSISTANT:
        return [*prompt, *side]
    asked = [message.text for message in side if message.role == USER]
    if prompt[-1].text not in asked:
        raise RowError(BROKEN_CONVERSATION, "a side begins with another question than 'prompt'")
    return side


def _train_last(found: Conversation, *, rejected: str = "") -> Conversation:
    earlier = [replace(turn, is_trained=False) for turn in found.turns[:-1]]
    return replace(found, turns=(*earlier, found.turns[-1]), rejected=rejected)


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
