"""Conversations as a model reads them: one renderer for training, answering and bundles.

A template is rendered as transformers' `apply_chat_template` renders it, with jinja2 alone, so that
a device without transformers sends a model the very text that it was trained on. Left out:
tokenizers, which turn the text into tokens.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, final

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import CheckpointError, DataError

IMAGE_TOKEN = "<|image|>"
"""Stands in a prompt where a merged patch of an image goes."""


@final
class ChatTemplate:
    """A tokenizer's chat template, ready to render.

    Raises:
        CheckpointError: the template is damaged.
    """

    def __init__(
        self, source: str | None, *, special_tokens: Mapping[str, str], place: str | Path = "model"
    ) -> None:
        self._place = place
        self._special_tokens = dict(special_tokens)
        try:
            self._template = None if source is None else _environment().from_string(source)
        except TemplateError as error:
            raise CheckpointError(
                f"{place}: damaged chat template ({error}); copy it again"
            ) from None

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a conversation, up to where the assistant's answer starts.

        A base model, which has no template, reads one message a line.

        Raises:
            CheckpointError: the template cannot render it.
        """
        if self._template is None:
            return "\n".join([*(message.content for message in messages), ""])
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._place}: chat template cannot render a question: {error}"
            ) from error


def place_image_tokens(messages: Sequence[Message], *, num_tokens: int) -> list[Message]:
    """The messages with so many image tokens before the first one of the user.

    Raises:
        DataError: a message writes the image token itself, where no image would stand.
    """
    for message in messages:
        if IMAGE_TOKEN in message.content:
            raise DataError(
                f"{message.content[:60]!r} writes {IMAGE_TOKEN!r} itself; give the image beside "
                "the question"
            )
    placed = list(messages)
    first = next(index for index, message in enumerate(placed) if message.role == "user")
    placed[first] = Message("user", IMAGE_TOKEN * num_tokens + placed[first].content)
    return placed


class _GenerationBlock(Extension):
    """`{% generation %}`, with which some templates mark the assistant's turns: text as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    @override
    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers': jinja2's own filter would escape HTML. Templates name the settings."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
