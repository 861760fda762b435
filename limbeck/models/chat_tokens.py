"""Conversations as tokens, by a transformers tokenizer: what is control, what ends an answer."""

from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.errors import CheckpointError
from limbeck.models.chat import MASK, ChatTemplate, encode_masked
from limbeck.models.vocabulary import Vocabulary


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The chat template of a tokenizer.

    Raises:
        CheckpointError: it is damaged.
    """
    return ChatTemplate(
        None if tokenizer.chat_template is None else tokenizer.get_chat_template(),
        special_tokens=tokenizer.special_tokens_map,
        control_tokens=control_tokens(tokenizer),
        place=tokenizer.name_or_path,
    )


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokens that mean something to a model wherever they stand."""
    added = tokenizer.added_tokens_decoder.values()
    return [token.content for token in added if token.special]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each rendered text, without special ones around it."""

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    def encode_plain(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    if not any(MASK in text for text in texts):
        return cast(list[list[int]], tokenizer(list(texts), add_special_tokens=False)["input_ids"])
    return [encode_masked(text, encode=encode, encode_plain=encode_plain) for text in texts]


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer: the template's end of a turn, else the end of a text.

    Raises:
        CheckpointError: the tokenizer has none.
    """
    end = chat_template_of(tokenizer).end.strip()
    if end:
        return cast(int, tokenizer.convert_tokens_to_ids(end))
    return end_of_text_id(tokenizer)


def end_of_text_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a text that is no conversation.

    Raises:
        CheckpointError: the tokenizer has none.
    """
    end = Vocabulary.of(tokenizer).eos_token_id
    if end is None:
        raise CheckpointError("the tokenizer has no eos_token; answers could not end")
    return end


def end_token_ids(
    tokenizer: PreTrainedTokenizerBase, *, listed: Sequence[int] = ()
) -> tuple[int, ...]:
    """All tokens that end an answer, the trained one first: `listed` are a checkpoint's own."""
    own = (end_token_id(tokenizer), end_of_text_id(tokenizer))
    return tuple(dict.fromkeys((*own[:1], *listed, *own[1:])))


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer writes before a text that no template starts: one token or none."""
    first = cast(list[int], tokenizer.encode("")[:1])
    return first if first == [Vocabulary.of(tokenizer).bos_token_id] else []
