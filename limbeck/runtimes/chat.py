"""Questions to tokens and tokens to text.

`FileChat` reads a tokenizer's files with `tokenizers` and `jinja2` alone and renders as
transformers does; a test holds both to the same tokens.
"""

import abc
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from limbeck.contracts.errors import CheckpointError, DataError

UNFINISHED = "\ufffd"
"""What a decoder shows for bytes that do not make up a character yet."""
SEES_NOTHING = (
    "the question has an image, and the model has no image encoder; ask it without, or ask a "
    "checkpoint that an `extend` entry gave one"
)


class Chat(abc.ABC):
    """How one model is spoken to."""

    end_ids: tuple[int, ...]
    """Tokens that end an answer; the first is what an answer is trained to end with."""

    @abc.abstractmethod
    def render(self, question: str, *, num_images: int = 0) -> list[int]:
        """The prompt's tokens, those of images first; they end where the answer starts.

        Raises:
            DataError: there are images, and the model sees none.
        """

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones around it."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""


class FileChat(Chat):
    """A chat from `tokenizer.json`, `tokenizer_config.json` and the chat template of a folder."""

    def __init__(self, folder: Path) -> None:
        settings = _read_json(folder / "tokenizer_config.json")
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{folder}: no tokenizer.json; copy the tokenizer files too")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more specific
            raise CheckpointError(f"{path}: damaged tokenizer ({error}); copy it again") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._specials = {
            name: value["content"] if isinstance(value, dict) else value
            for name, value in settings.items()
            if name.endswith("_token") and value
        }
        self._place = folder
        self._template = _compile(folder, settings)
        self.end_ids = self._find_ends(folder)

    def _find_ends(self, folder: Path) -> tuple[int, ...]:
        path = folder / "generation_config.json"
        ends = _read_json(path).get("eos_token_id") if path.is_file() else None
        if ends is None:
            ends = self._tokenizer.token_to_id(str(self._specials.get("eos_token", "")))
        ids = [ends] if isinstance(ends, int) else ends
        if not isinstance(ids, list) or not ids or not all(isinstance(item, int) for item in ids):
            raise CheckpointError(
                f"{folder}: no token that ends an answer (found {ends!r}); set eos_token_id in "
                "generation_config.json"
            )
        return tuple(ids)

    def render(self, question: str, *, num_images: int = 0) -> list[int]:
        """The prompt's tokens; they end where the answer starts."""
        if num_images:
            raise DataError(SEES_NOTHING)
        messages = [{"role": "user", "content": question}]
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=True, **self._specials
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._place}: chat template cannot render a question: {error}"
            ) from error
        return self.encode(text)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones around it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


class TextStream:
    """Text of growing tokens, piece by piece, never half a character."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._context = self._shown = 0

    def push(self, token: int) -> str:
        """What the token adds to the text; '' while a character is unfinished."""
        self._ids.append(token)
        return self._take(whole=UNFINISHED)

    def finish(self) -> str:
        """What is left, however unfinished."""
        return self._take(whole="")

    def _take(self, *, whole: str) -> str:
        # Some decoders treat the first token differently, so a few shown ones stay as context.
        shown = self._chat.decode(self._ids[self._context : self._shown])
        text = self._chat.decode(self._ids[self._context :])
        if len(text) <= len(shown) or (whole and text.endswith(whole)):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return text[len(shown) :]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no {path.name}; copy the tokenizer files too")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _compile(folder: Path, settings: dict[str, Any]) -> Any:
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    text = text or settings.get("chat_template")
    if not isinstance(text, str):
        raise CheckpointError(
            f"{folder}: no chat template; expected chat_template.jinja, which says where an "
            "answer starts"
        )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, **options
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except TemplateError as error:
        raise CheckpointError(f"{folder}: damaged chat template ({error}); copy it again") from None


def _refuse(message: str) -> None:
    raise TemplateError(message)
