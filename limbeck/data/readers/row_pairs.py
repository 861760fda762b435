"""Preference pairs: two answers to one question, of which the better one is learnt.

A side is a text, a transcript, a message or several; the question stands in a column or a chat, or
begins both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.data.readers.messages import (
    ASSISTANT,
    USER,
    CheckedMessage,
    Conversation,
    check_tools,
    join_messages,
    read_messages,
)
from limbeck.data.readers.row_values import (
    BROKEN_CONVERSATION,
    MISSING_FIELD,
    WRONG_TYPE,
    RowError,
    is_missing,
    require_text,
)
from limbeck.data.readers.transcripts import read_prompt, read_transcript

CHAT_KEYS = ("conversations", "messages")
ALPACA_QUESTION = ("instruction", "input")
OPENAI_PAIR = ("input", "preferred_output", "non_preferred_output")


def rename_openai_pair(values: JsonMapping) -> JsonMapping:
    """A pair as OpenAI's preference training takes it, under the names of other pairs."""
    asked, chosen, rejected = (values[name] for name in OPENAI_PAIR)
    if not isinstance(asked, Mapping):
        raise RowError(BROKEN_CONVERSATION, "'input' is no object with 'messages'")
    check_tools(asked)
    rest = {name: value for name, value in values.items() if name not in OPENAI_PAIR}
    return {**rest, "prompt": asked.get("messages"), "chosen": chosen, "rejected": rejected}


def read_pair(values: JsonMapping, *, questions: Sequence[str]) -> Conversation:
    """A preference pair; its prompt stands in a column or in a chat, or begins both sides."""
    sides = [as_messages(values[name]) for name in ("chosen", "rejected")]
    prompt = as_prompt(values)
    if not prompt and all(side[0].role == ASSISTANT for side in sides):
        chat = next((key for key in CHAT_KEYS if not is_missing(values.get(key))), "")
        named = tuple(name for name in questions if not is_missing(values.get(name)))
        if chat:
            prompt = read_messages(values[chat], key=chat)
        else:
            prompt = [
                CheckedMessage(USER, require_text(values, *(named or ("prompt", *ALPACA_QUESTION))))
            ]
    return _join_pair(prompt, *sides)


def as_prompt(values: JsonMapping) -> list[CheckedMessage]:
    """The messages of the column `prompt`; none where it is empty."""
    prompt = values.get("prompt")
    if is_missing(prompt) or prompt == "":
        return []
    if not isinstance(prompt, str):
        return as_messages(prompt)
    return read_prompt(prompt)


def as_messages(side: Json) -> list[CheckedMessage]:
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
    return train_last(better, rejected=worse.turns[-1].answer)


def _after_prompt(prompt: list[CheckedMessage], side: list[CheckedMessage]) -> list[CheckedMessage]:
    """The whole conversation of a side, which may repeat the prompt."""
    if not prompt or side[0].role == ASSISTANT:
        return [*prompt, *side]
    asked = [message.text for message in side if message.role == USER]
    if prompt[-1].text not in asked:
        raise RowError(BROKEN_CONVERSATION, "a side begins with another question than 'prompt'")
    return side


def train_last(found: Conversation, *, rejected: str = "") -> Conversation:
    """The conversation, of which the last answer alone is learnt."""
    earlier = [replace(turn, is_trained=False) for turn in found.turns[:-1]]
    return replace(found, turns=(*earlier, found.turns[-1]), rejected=rejected)
