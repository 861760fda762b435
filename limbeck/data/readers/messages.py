"""Lists of messages, as chat data sets write them, to turns of a conversation.

Read are OpenAI's messages, ShareGPT's and pairs of texts. What cannot be rendered as it stands is
refused by name: calls of tools, several speakers in one role, instructions in the middle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.contracts.records import Reason
from limbeck.data.readers.json_text import parse_json
from limbeck.data.readers.row_values import (
    BROKEN_CONVERSATION,
    IMAGES_NOT_READ,
    RowError,
    is_missing,
)

SYSTEM = "system"
USER = "user"
ASSISTANT = "assistant"
TOOL = "tool"
ROLES = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("human", "user", "question", "patient", "prompter"), USER),
    **dict.fromkeys(
        ("gpt", "assistant", "chatgpt", "bing", "bard", "doctor", "model", "bot", "ai"), ASSISTANT
    ),
    **dict.fromkeys(
        ("tool", "function", "function_call", "tool_call", "observation", "ipython"), TOOL
    ),
}
SPEAKERS = ("from", "role")
"""Keys of a message that name its speaker."""
TURN_KEYS = (
    *(("human", "assistant"), ("user", "assistant"), ("question", "answer"), ("input", "output")),
    *(("prompt", "response"), ("query", "response")),
)
"""Keys of an object that holds both sides of a turn."""
TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id", "tools", "functions")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
MESSAGE_WEIGHTS = (
    *("weight", "train", "training", "loss"),
    *("trainable", "loss_weight", "loss_mask"),
)
"""What OpenAI, axolotl, swift and others call the switch of whether an answer is learnt."""
PART_WEIGHTS = ("train_detail", "training_detail")
"""What axolotl calls the switches of an answer's parts."""
CONTENTS = ("value", "content", "parts")
MESSAGE_KEYS = frozenset((*SPEAKERS, *CONTENTS, "name", *MESSAGE_WEIGHTS))
"""What is read of a message."""
ROW_WEIGHTS = ("weight", "train")
"""The same for all answers of a row."""
NO_WEIGHT, FULL_WEIGHT = ("0", "0.0", "false"), ("1", "1.0", "true")
TEXT_PARTS = ("text", "input_text", "output_text")
IMAGE_PARTS = ("image", "image_url", "input_image")
TOOL_PARTS = ("tool_use", "tool_result", "tool_call", "tool_calls", "function_call")
REASONING_PARTS = ("thinking", "redacted_thinking", "reasoning")

TOOL_TURNS = Reason("tool_turns", "工具调用", "calls of tools")
REASONING_NOT_READ = Reason("reasoning_not_read", "未读取推理字段", "reasoning beside the answer")
UNKNOWN_WEIGHT = Reason("unknown_weight", "权重无法使用", "weight that cannot be used")


@dataclass(frozen=True)
class Turn:
    """What was asked and answered; asked is '' for plain text."""

    question: str
    answer: str
    is_trained: bool = True
    """Whether the answer is learnt; otherwise it is only read before later ones."""


@dataclass(frozen=True)
class Conversation:
    """What one row holds."""

    turns: tuple[Turn, ...]
    system: str = ""
    rejected: str = ""
    """A worse answer to the last question."""
    images: tuple[str, ...] = ()
    """As messages name them; about the first question."""
    skipped_greeting: str = ""
    """What the assistant said before anything was asked."""
    ignored_names: tuple[str, ...] = ()
    """What messages call their one speaker of a role."""


@dataclass(frozen=True)
class CheckedMessage:
    """One message, checked."""

    role: str
    text: str
    is_trained: bool = True
    images: tuple[str, ...] = ()
    name: str = ""


def read_messages(messages: Json, *, key: str) -> list[CheckedMessage]:
    """The messages of a list, in order."""
    if isinstance(messages, str):
        try:
            messages = parse_json(messages)
        except ValueError:
            detail = f"{key!r} is a text and no JSON, expected a list of messages; store it as one"
            raise RowError(BROKEN_CONVERSATION, detail) from None
    if not isinstance(messages, Sequence) or not len(messages):
        raise RowError(BROKEN_CONVERSATION, f"{key!r} is no list of messages, or an empty one")
    return [message for item in messages for message in _read_item(item)]


def is_turn(item: Json) -> bool:
    """Whether an object holds a question and its answer, as Firefly and XTuner write turns."""
    return isinstance(item, Mapping) and not find_speaker(item) and bool(_turn_keys(item))


def find_speaker(item: JsonMapping) -> str:
    """The key of a message that names its speaker; '' where the object is no message."""
    return next((key for key in SPEAKERS if key in item), "")


def join_messages(messages: Sequence[CheckedMessage]) -> Conversation:
    """The conversation that messages are: instructions, then questions with their answers.

    An assistant's greeting before the first question answers nothing: it is left out.
    """
    names = _check_names(messages)
    rest = list(messages)
    system = rest.pop(0).text if rest and rest[0].role == SYSTEM else ""
    greeting = rest.pop(0).text if rest and rest[0].role == ASSISTANT else ""
    for number, message in enumerate(rest):
        expected = ASSISTANT if number % 2 else USER
        if message.role == expected:
            continue
        if message.role == SYSTEM:
            detail = "a system turn that is not the first"
        elif number:
            detail = f"two {message.role} turns in a row"
        else:
            detail = "two assistant turns before the first question"
        raise RowError(BROKEN_CONVERSATION, f"{detail}: {message.text[:60]!r}")
    if not rest or len(rest) % 2:
        detail = "ends with a question" if rest else "nothing is asked"
        raise RowError(BROKEN_CONVERSATION, detail)
    for message in rest[1:]:
        if message.images:
            raise RowError(IMAGES_NOT_READ, "an image after the first question")
    turns = tuple(
        Turn(question.text, answer.text, answer.is_trained)
        for question, answer in zip(rest[::2], rest[1::2], strict=True)
    )
    return Conversation(
        turns, system, images=rest[0].images, skipped_greeting=greeting, ignored_names=names
    )


def check_tools(values: JsonMapping) -> None:
    """Refuse a row or a message that offers or calls tools: no template renders them here."""
    for key in TOOL_KEYS:
        value = values.get(key)
        is_empty = is_missing(value) or value in ("", "[]", "{}", "null")
        if not is_empty and not (isinstance(value, Sequence | Mapping) and not value):
            raise RowError(TOOL_TURNS, f"{key!r} is {str(value)[:60]!r}")


def read_weight(values: JsonMapping, *, keys: Sequence[str] = MESSAGE_WEIGHTS) -> bool:
    """Whether a message or a row is learnt, by the switches that it has."""
    weights = {key: values[key] for key in keys if not is_missing(values.get(key))}
    for key, value in weights.items():
        if str(value).lower() not in (*NO_WEIGHT, *FULL_WEIGHT):
            detail = f"{key!r} is {str(value)[:40]!r}; 0 and 1 are known, and repeats of a source"
            raise RowError(UNKNOWN_WEIGHT, detail)
    return all(str(value).lower() in FULL_WEIGHT for value in weights.values())


def _turn_keys(item: JsonMapping) -> tuple[str, ...]:
    return next((keys for keys in TURN_KEYS if all(key in item for key in keys)), ())


def _read_item(item: Json) -> list[CheckedMessage]:
    """The messages of an object that is a turn; of another, the one that it is."""
    if not is_turn(item):
        return [_read_message(item)]
    check_tools(item)
    question, answer = _turn_keys(item)
    parts = {SYSTEM: item.get(SYSTEM), USER: item[question], ASSISTANT: item[answer]}
    return [
        _read_message({"role": role, "content": text})
        for role, text in parts.items()
        if text or role != SYSTEM
    ]


def _read_message(message: Json) -> CheckedMessage:
    if not isinstance(message, Mapping):
        raise RowError(BROKEN_CONVERSATION, f"not a message: {str(message)[:80]!r}")
    sender = _first(message, *SPEAKERS)
    role = ROLES.get(sender.lower(), "") if isinstance(sender, str) else ""
    if role == TOOL:
        raise RowError(TOOL_TURNS, f"a turn of {sender!r}")
    check_tools(message)
    for key in REASONING_KEYS:
        if message.get(key):
            detail = f"{key!r} beside the content; put it into the content, or remove it"
            raise RowError(REASONING_NOT_READ, detail)
    for key in PART_WEIGHTS:
        if message.get(key):
            detail = f"{key!r}: an answer is learnt whole or not; set 'train' instead"
            raise RowError(UNKNOWN_WEIGHT, detail)
    content = _first(message, *CONTENTS)
    text, images = _read_content(content)
    is_none = is_missing(content) and role == SYSTEM
    if not role or not isinstance(text, str) or (not text.strip() and role != SYSTEM):
        detail = f"no text or no known speaker: {str(dict(message))[:100]}"
        raise RowError(BROKEN_CONVERSATION, detail)
    if images and role != USER:
        raise RowError(IMAGES_NOT_READ, f"an image in a turn of {sender!r}")
    name = message.get("name")
    return CheckedMessage(
        role=role,
        text="" if is_none or not text.strip() else text,
        is_trained=role != ASSISTANT or read_weight(message),
        images=images,
        name=name if isinstance(name, str) else "",
    )


def _first(message: JsonMapping, *keys: str) -> Json:
    """The value of the first key that has one: tables fill up each other's keys with nulls."""
    return next((message[key] for key in keys if not is_missing(message.get(key))), None)


def _read_content(content: Json) -> tuple[Json, tuple[str, ...]]:
    """A content's text and images; a content of parts is joined line by line."""
    if isinstance(content, str | None) or not isinstance(content, Sequence):
        return "" if content is None else content, ()
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and part.keys() == {"text"}:
            kind = TEXT_PARTS[0]  # as Gemini and Bedrock write it
        if isinstance(part, str):
            texts.append(part)
        elif kind in TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in IMAGE_PARTS:
            images += _image_of(part)
        elif kind in TOOL_PARTS:
            raise RowError(TOOL_TURNS, f"a part of {kind!r}")
        elif kind in REASONING_PARTS:
            raise RowError(REASONING_NOT_READ, f"a part of {kind!r}")
        else:
            raise RowError(BROKEN_CONVERSATION, f"a part that is no text: {str(part)[:80]!r}")
    return "\n".join(texts), tuple(images)


def _image_of(part: JsonMapping) -> list[str]:
    """The path in an image part; a part without one stands for an image that the row names."""
    found = _first(part, "image_url", "image", "path", "url")
    found = _first(found, "url", "path") if isinstance(found, Mapping) else found
    if found is not None and not isinstance(found, str):
        raise RowError(IMAGES_NOT_READ, "an image inside the file; save it as a file of its own")
    return [] if found is None else [found]


def _check_names(messages: Sequence[CheckedMessage]) -> tuple[str, ...]:
    """The names of speakers, one a role at most: a template has no place for a second one."""
    names = {(message.role, message.name) for message in messages if message.name}
    for role in ROLES.values():
        of_role = sorted(name for found, name in names if found == role)
        if len(of_role) > 1:
            detail = f"several {role}s: {', '.join(of_role)[:80]}"
            raise RowError(BROKEN_CONVERSATION, detail)
    return tuple(sorted(name for _, name in names))
