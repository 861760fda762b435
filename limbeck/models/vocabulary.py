"""What a model's shape takes from its tokenizer. Left out: tokenizers themselves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from limbeck.models.chat import IMAGE_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The number of tokens, and the ids with a meaning of their own."""

    num_tokens: int
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = 1
    image_token_id: int | None = None
    """Of the token that images stand for; None where the tokenizer has none."""

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Vocabulary":
        """The vocabulary of a tokenizer."""
        special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        pad, bos, end = cast(tuple[int | None, int | None, int | None], special)
        return cls(len(tokenizer), pad, bos, end, tokenizer.get_vocab().get(IMAGE_TOKEN))

    def __len__(self) -> int:
        return self.num_tokens


def as_token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Token ids of a config's field that holds none, one or several, such as `eos_token_id`."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
