"""Prompts to tokens and tokens to text, for one model.

`read_chat` needs only the tokenizer's files, `tokenizers` and `jinja2`: what a bundle's device has.
"""

import abc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tokenizers import Tokenizer
from typing_extensions import override

from limbeck.contracts.answerer import Prompt
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.models.chat import ChatTemplate, encode_continuation, encode_masked

UNFINISHED = "\ufffd"
"""What a decoder shows for bytes that do not make up a character yet."""
NO_IMAGE_ENCODER = (
    "the question has an image, and the model has no image encoder; ask it without, or ask a "
    "checkpoint that an `extend` entry gave one"
)


class TextCodec(abc.ABC):
    """A tokenizer, whichever library holds it."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Tokens of a rendered text, without special ones around it."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""


@dataclass(frozen=True)
class RenderedOption:
    """Tokens of a prompt and of one answer to it, its end included."""

    given: list[int]
    answer: list[int]


@final
class Chat:
    """How one model reads prompts and ends answers."""

    def __init__(
        self,
        template: ChatTemplate,
        codec: TextCodec,
        *,
        end_ids: tuple[int, ...],
        tokens_per_image: int = 0,
    ) -> None:
        self.template = template
        self._tokens_per_image = tokens_per_image
        self.end_ids = end_ids
        """Tokens that end an answer; the first is what an answer is trained to end with."""
        self.encode = codec.encode
        self.decode = codec.decode

    def render(self, prompt: Prompt) -> list[int]:
        """The prompt's tokens; they end where the answer starts.

        Raises:
            DataError: there are images, and the model has no encoder for them; or the chat template
                leaves a turn out.
            CheckpointError: the chat template cannot render the messages.
        """
        num_tokens = self._count_image_tokens(prompt)
        text = self.template.render(prompt.messages, num_image_tokens=num_tokens)
        if left_out := self.template.find_unwritten(prompt.messages, prompt=text):
            place = prompt.messages.index(left_out) + 1
            raise DataError(
                f"the model's chat template leaves out turn {place}, the {left_out.role}'s, which "
                "the model would not read; say it in the question"
            )
        return self.encode(text)

    def render_options(self, prompt: Prompt, options: Sequence[str]) -> list[RenderedOption]:
        """Each option as the answer to a prompt, as an answer is trained.

        Raises:
            DataError, CheckpointError: as `render`.
        """
        num_tokens = self._count_image_tokens(prompt)
        turns = [
            self.template.render_turn(prompt.messages, answer=option, num_image_tokens=num_tokens)
            for option in options
        ]
        learnt = [self._continue(turn.prompt, turn.learnt) for turn in turns]
        openings = [
            self._continue(turn.prompt, turn.opening) if turn.opening else [] for turn in turns
        ]
        # A blank may be one token with an answer's first word. Then it counts in every option:
        # what is compared has to follow the same context.
        is_apart = all(
            tokens[: len(opening)] == opening
            for tokens, opening in zip(learnt, openings, strict=True)
        )
        found = []
        for turn, tokens, opening in zip(turns, learnt, openings, strict=True):
            num_given = len(opening) if is_apart else 0
            answer = tokens[num_given:] if turn.end else [*tokens[num_given:], self.end_ids[0]]
            found.append(RenderedOption(self.encode(turn.prompt) + tokens[:num_given], answer))
        return found

    def read_answer(self, ids: Sequence[int]) -> str:
        """The answer in generated tokens."""
        return self.template.strip_opening(self.decode(ids))

    def _continue(self, given: str, text: str) -> list[int]:
        return encode_continuation(text, given=given, encode=self.encode)

    def _count_image_tokens(self, prompt: Prompt) -> int:
        if prompt.images and not self._tokens_per_image:
            raise DataError(NO_IMAGE_ENCODER)
        return self._tokens_per_image * len(prompt.images)


@final
class FileCodec(TextCodec):
    """The tokenizer in a `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f"{path.parent}: no {path.name}; copy the tokenizer files too")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more specific
            raise CheckpointError(f"{path}: damaged tokenizer ({error}); copy it again") from None
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @override
    def encode(self, text: str) -> list[int]:
        return encode_masked(text, encode=self._encode, encode_plain=self._encode_plain)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_plain(self, text: str) -> list[int]:
        self.tokenizer.encode_special_tokens = True
        try:
            return self._encode(text)
        finally:
            self.tokenizer.encode_special_tokens = False

    @override
    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


def read_chat(folder: Path) -> Chat:
    """The chat that `tokenizer.json`, `tokenizer_config.json` and the chat template describe.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    settings = _read_json(folder / "tokenizer_config.json")
    codec = FileCodec(folder / "tokenizer.json")
    special_tokens = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in settings.items()
        if name.endswith("_token") and value
    }
    added = codec.tokenizer.get_added_tokens_decoder().values()
    template = ChatTemplate(
        _read_template(folder, settings),
        special_tokens=special_tokens,
        control_tokens=[token.content for token in added if token.special],
        place=folder,
    )
    end = codec.tokenizer.token_to_id(str(special_tokens.get("eos_token", "")))
    listed = _read_end_ids(folder, default=end)
    trained = codec.tokenizer.token_to_id(template.end.strip()) if template.end else None
    first = () if trained is None else (trained,)
    return Chat(template, codec, end_ids=tuple(dict.fromkeys((*first, *listed))))


def no_template(folder: Path) -> CheckpointError:
    """The error of a folder whose tokenizer has no chat template."""
    return CheckpointError(
        f"{folder}: no chat template; expected chat_template.jinja, which says where an "
        "answer starts"
    )


def _read_template(folder: Path, settings: JsonObject) -> str:
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    text = text or settings.get("chat_template")
    if not isinstance(text, str):
        raise no_template(folder)
    return text


def _read_end_ids(folder: Path, *, default: int | None) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    ends = _read_json(path).get("eos_token_id") if path.is_file() else None
    ends = default if ends is None else ends
    ids = [ends] if isinstance(ends, int) else ends
    if not isinstance(ids, list) or not ids or not all(isinstance(item, int) for item in ids):
        raise CheckpointError(
            f"{folder}: no token that ends an answer (found {ends!r}); set eos_token_id in "
            "generation_config.json"
        )
    return tuple(ids)


@final
class TextStream:
    """The answer in growing tokens, piece by piece, never half a character."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._ids: list[int] = []
        self._context = self._shown = 0
        self._held = ""
        """What may still be the opening that the template writes before an answer."""
        self._is_open = not chat.template.opening

    def push(self, token: int) -> str:
        """What the token adds to the text; '' while a character is unfinished."""
        self._ids.append(token)
        return self._hold(self._take(whole=UNFINISHED))

    def finish(self) -> str:
        """What is left, however unfinished."""
        return self._hold(self._take(whole="")) + self._release()

    def _hold(self, piece: str) -> str:
        if self._is_open:
            return piece
        self._held += piece
        opening = self._chat.template.opening
        is_begun = len(self._held) < len(opening) and opening.startswith(self._held)
        return "" if is_begun else self._release()

    def _release(self) -> str:
        held, self._held, self._is_open = self._held, "", True
        return self._chat.template.strip_opening(held)

    def _take(self, *, whole: str) -> str:
        # Some decoders treat the first token differently, so a few shown ones stay as context.
        shown = self._chat.decode(self._ids[self._context : self._shown])
        text = self._chat.decode(self._ids[self._context :])
        if len(text) <= len(shown) or (whole and text.endswith(whole)):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return text[len(shown) :]


def _read_json(path: Path) -> JsonObject:
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no {path.name}; copy the tokenizer files too")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
