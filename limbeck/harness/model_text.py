"""How a model reads and writes plain texts, special tokens included: what a harness needs of it.

Left out: conversations, which the model's own chat template renders (`limbeck.models.chat`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.models.chat import ChatTemplate
from limbeck.runtimes import find_runtime, open_runtime
from limbeck.runtimes.base import LoadedModel
from limbeck.runtimes.chat import FileCodec, read_chat


@dataclass(frozen=True)
class ModelText:
    """The tokenizer of one model."""

    encode: Callable[[str], list[int]]
    """Without special tokens around the text; those in the text are read as such."""
    encode_whole: Callable[[str], list[int]]
    """With the special tokens that the tokenizer itself writes around a text."""
    decode: Callable[[Sequence[int]], str]
    """Special tokens are left out."""
    prefix_id: int
    """What a text without context stands after: the start of a text, else the end of one."""
    prefix: str
    end_ids: tuple[int, ...]
    """Tokens that end an answer."""
    special_ids: Mapping[str, int]
    num_tokens: int
    template: ChatTemplate | None
    """None for a base model."""


def open_model(folder: Path, *, num_threads: int) -> tuple[LoadedModel, ModelText]:
    """The model in a bundle or a checkpoint folder, and its tokenizer.

    Raises:
        CheckpointError: the folder is neither, or is damaged.
    """
    name = find_runtime(folder)
    model = open_runtime(name).open_model(folder, num_threads=num_threads)
    if name == "transformers":
        from limbeck.harness.checkpoint_text import read_checkpoint_text  # noqa: PLC0415  (torch)

        return model, read_checkpoint_text(folder)
    return model, read_bundle_text(folder)


def read_bundle_text(folder: Path) -> ModelText:
    """The tokenizer of a bundle, from its files alone.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    chat, tokenizer = read_chat(folder), FileCodec(folder / "tokenizer.json").tokenizer
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special_ids = {
        token.content: id_
        for id_, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }

    def find(name: str) -> int | None:
        value = settings.get(name)
        text = value["content"] if isinstance(value, dict) else value
        return tokenizer.token_to_id(text) if isinstance(text, str) else None

    start = find("bos_token")
    prefix_id = find("eos_token") if start is None else start
    prefix = None if prefix_id is None else tokenizer.id_to_token(prefix_id)
    if prefix_id is None or prefix is None:
        raise CheckpointError(f"{folder}: the tokenizer has no eos_token; copy its files again")
    return ModelText(
        encode=chat.encode,
        encode_whole=lambda text: tokenizer.encode(text).ids,
        decode=chat.decode,
        prefix_id=prefix_id,
        prefix=prefix,
        end_ids=chat.end_ids,
        special_ids=special_ids,
        num_tokens=tokenizer.get_vocab_size(),
        template=chat.template,
    )
