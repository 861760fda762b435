"""Conversations as a model reads them: one renderer for training, answering and bundles.

A template is rendered as transformers' `apply_chat_template` renders it, with jinja2 alone, so that
a device without transformers sends a model the very text that it was trained on. Left out:
tokenizers, which turn the text into tokens.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn, final

from jinja2 import Template, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import CheckpointError, DataError

Encode = Callable[[str], list[int]]

PLAIN_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}:\n"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""Of a base model, whose tokenizer has none: from the start of a text, each turn after a line with
its role, and the end of a text after each answer. A prompt ends with a line break, which tokenizers
keep apart from the answer's first word."""
NO_TEMPLATE = (
    "has no chat template, so its conversations are written plainly: each turn after a line "
    "`User:` or `Assistant:`, and the end-of-text token after each answer; if it was trained on "
    "chats, copy its chat_template.jinja too, or state one with `chat_template: FILE` in the entry "
    "that prepares the corpus"
)
IMAGE_TOKEN = "<|image|>"
"""Stands in a prompt where a merged patch of an image goes."""
PROBE_ANSWER = "Q7wX"
"""Shows what a template writes around an answer."""
MASK, BREAK, UNMASK = "\ufdd0", "\ufdd1", "\ufdd2"
"""Around, and after the first character of, a control token that somebody wrote as text.

Noncharacters, which no text may hold (Unicode 16, sec. 23.7)."""
MASKED = re.compile(f"{MASK}(.*?){UNMASK}", re.DOTALL)
NONCHARACTERS = re.compile(f"[{MASK}{BREAK}{UNMASK}]")


@dataclass(frozen=True)
class RenderedTurn:
    """A conversation as text, up to the end of its last answer."""

    prompt: str
    opening: str
    """What the template writes between the prompt and the answer, such as an empty thought."""
    answer: str
    end: str
    """The token that ends the answer, with white space before it; '' where the template has none.
    """

    @property
    def learnt(self) -> str:
        """What a model is to generate after the prompt."""
        return self.opening + self.answer + self.end


@final
class ChatTemplate:
    """A tokenizer's chat template, ready to render.

    `control_tokens` are those that mean something to the model. Where a message writes one, it is
    masked, so that `encode_masked` makes ordinary text of it: nobody's words open a turn.

    Raises:
        CheckpointError: the template is damaged.
    """

    def __init__(
        self,
        source: str | None,
        *,
        special_tokens: Mapping[str, str],
        control_tokens: Collection[str] = (),
        place: str | Path = "model",
    ) -> None:
        self._place = place
        self._special_tokens = dict(special_tokens)
        longest_first = sorted(filter(None, control_tokens), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        try:
            self._template = None if source is None else _compile(source)
        except TemplateError as error:
            raise CheckpointError(
                f"{place}: damaged chat template ({error}); copy it again"
            ) from None

    def render(self, messages: Sequence[Message], *, num_image_tokens: int = 0) -> str:
        """The text of a conversation, up to where the assistant's answer starts.

        A base model, which has no template, reads one message a line. So many image tokens stand
        before the first message of the user.

        Raises:
            CheckpointError: the template cannot render it.
            DataError: with images, a message writes the image token itself.
        """
        masked = self._mask(messages, num_image_tokens=num_image_tokens)
        return self._render(masked, add_generation_prompt=True)

    def render_turn(
        self, messages: Sequence[Message], *, answer: str, num_image_tokens: int = 0
    ) -> RenderedTurn:
        """The text of a conversation with its last answer, as the template writes and ends it.

        A template that changes the answer, as some do that leave out thoughts, says only how
        answers end.

        Raises:
            CheckpointError, DataError: as `render`.
        """
        masked = self._mask(messages, num_image_tokens=num_image_tokens)
        prompt = self._render(masked, add_generation_prompt=True)
        found = self._find_turn(masked, prompt=prompt, answer=self.mask(answer))
        return found or RenderedTurn(prompt, "", self.mask(answer), self.end)

    def find_unwritten(self, messages: Sequence[Message], *, prompt: str) -> Message | None:
        """The first turn that the template has left out of a prompt; None where all are in it.

        Some templates write no system turn, or only a first one. Earlier answers may be rewritten,
        to leave out thoughts.
        """
        for message in messages:
            text = message.content.strip()
            if message.role != "assistant" and text not in prompt and self.mask(text) not in prompt:
                return message
        return None

    @property
    def end(self) -> str:
        """What ends an answer: a control token, with white space before it; '' for none."""
        return self._probe.end

    def strip_opening(self, generated: str) -> str:
        """The answer in a generated text: without what the template writes before each answer.

        Such as the empty thought of Qwen3, which is learnt with the answer.
        """
        return generated.removeprefix(self.opening)

    @cached_property
    def opening(self) -> str:
        """What is written between a prompt and an answer, as a decoder shows it; '' for blanks."""
        shown = self._control.sub("", self._probe.opening)
        return shown if shown.strip() else ""

    @cached_property
    def _probe(self) -> RenderedTurn:
        messages = [Message("user", "?")]
        try:
            prompt = self._render(messages, add_generation_prompt=True)
            found = self._find_turn(messages, prompt=prompt, answer=PROBE_ANSWER)
        except CheckpointError:
            found = None
        return found or RenderedTurn("", "", "", "")

    def _find_turn(
        self, messages: Sequence[Message], *, prompt: str, answer: str
    ) -> RenderedTurn | None:
        """The turn where the template writes prompt and answer as they are; None otherwise."""
        shown = answer.strip()
        if self._template is None or not shown:
            return None
        whole = self._render([*messages, Message("assistant", answer)], add_generation_prompt=False)
        if not whole.startswith(prompt):
            return None
        written = whole[len(prompt) :]
        # An answer such as `end` or `d` stands in the name of the token that ends it, too.
        start = self._control.sub(lambda match: "\0" * len(match[0]), written).rfind(shown)
        if start < 0:
            return None
        rest = written[start + len(shown) :]
        end = self._control.search(rest)
        # Text after an answer that is not white space belongs to no answer.
        closing = rest[: end.end()] if end and not rest[: end.start()].strip() else ""
        return RenderedTurn(prompt, written[:start], shown, closing)

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        if self._template is None:
            return "\n".join([*(message.content for message in messages), ""])
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._place}: chat template cannot render a question: {error}"
            ) from error

    def _mask(self, messages: Sequence[Message], *, num_image_tokens: int) -> list[Message]:
        masked = [Message(item.role, self.mask(item.content)) for item in messages]
        if not num_image_tokens:
            return masked
        for message in messages:
            if IMAGE_TOKEN in message.content:
                raise DataError(
                    f"{message.content[:60]!r} writes {IMAGE_TOKEN!r} itself; give the image "
                    "beside the question"
                )
        first = next(index for index, message in enumerate(masked) if message.role == "user")
        masked[first] = Message("user", IMAGE_TOKEN * num_image_tokens + masked[first].content)
        return masked

    def mask(self, text: str) -> str:
        """The text with the control tokens in it masked."""
        text = NONCHARACTERS.sub("\ufffd", text)
        return self._control.sub(
            lambda match: f"{MASK}{match[0][0]}{BREAK}{match[0][1:]}{UNMASK}", text
        )


def encode_masked(text: str, *, encode: Encode, encode_plain: Encode) -> list[int]:
    """The tokens of a rendered text; `encode_plain` reads control tokens as ordinary text."""
    if MASK not in text:
        return encode(text)
    tokens = []
    for place, piece in enumerate(MASKED.split(text)):
        if piece:
            read = encode_plain if place % 2 else encode
            tokens += read(piece.replace(BREAK, ""))
    return tokens


def encode_continuation(text: str, *, given: str, encode: Encode) -> list[int]:
    """The tokens of a text as it stands after another one, which is encoded alone.

    Tokenizers such as those of Llama 2 and Mistral mark where a text starts: encoded alone, an
    answer would begin with a mark that stands in no conversation. Where a token would reach over
    the border, the text is encoded as after a line break.
    """
    for before in (given, "\n"):
        start, whole = encode(before), encode(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
    return encode(text)


class _GenerationBlock(Extension):
    """`{% generation %}`, with which some templates mark the assistant's turns: text as it is."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    @override
    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=32)
def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


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
