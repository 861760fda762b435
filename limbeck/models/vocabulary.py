"""What a model's shape needs to know of its tokenizer. Left out: tokenizers themselves."""

from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Vocabulary:
    """The number of tokens, and the ids with a meaning of their own."""

    num_tokens: int
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = 1

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Vocabulary":
        """The vocabulary of a tokenizer."""
        special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        return cls(len(tokenizer), *cast(tuple[int | None, int | None, int | None], special))

    def __len__(self) -> int:
        return self.num_tokens
