"""What a tokenizer takes on disk: counted from its folder, or assumed from the number of tokens."""

import json
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.sizing.file_formats import VocabularyBytes

TOKENIZER = "tokenizer.json"
FILES = (TOKENIZER, "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LENGTH_BYTES, NUMBER_BYTES = 8, 4
"""Of the length before a text, and of a type or a score, in a GGUF file."""
UNUSED_BYTES = 24
"""Of an embedding without a token in a GGUF file, which names each: `[PAD12345]`."""
ASSUMED_GGUF_BYTES, ASSUMED_FILE_BYTES = 34, 70
"""Of one token, texts, types and merges counted; SmolLM2's 49,152 tokens have 33.6 and 71.7."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What a plan reads of a tokenizer."""

    num_tokens: int
    bytes: VocabularyBytes


def assume_vocabulary(num_tokens: int) -> VocabularyBytes:
    """Of a tokenizer that is not there."""
    return VocabularyBytes(num_tokens * ASSUMED_GGUF_BYTES, num_tokens * ASSUMED_FILE_BYTES)


def read_tokenizer(folder: Path, *, num_rows: int = 0) -> TokenizerFacts:
    """The tokens of a tokenizer's folder, and their bytes, without transformers.

    `num_rows` is the number of a model's embeddings, which may be more.

    Raises:
        CheckpointError: there is no `tokenizer.json`, or it is damaged.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no {TOKENIZER}; name a folder with one, or state `vocab`"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = content["model"]
        # Unigram's vocabulary is a list of pairs, the others' a mapping.
        tokens = {item if isinstance(item, str) else item[0] for item in model["vocab"]}
        tokens |= {item["content"] for item in content.get("added_tokens") or ()}
        merges = [
            item if isinstance(item, str) else " ".join(item) for item in model.get("merges") or ()
        ]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); copy it again") from None
    texts = [*tokens, *merges]
    in_gguf = sum(LENGTH_BYTES + len(text.encode("utf-8", "replace")) for text in texts)
    in_gguf += UNUSED_BYTES * max(0, num_rows - len(tokens))
    files = sum((folder / name).stat().st_size for name in FILES if (folder / name).is_file())
    return TokenizerFacts(len(tokens), VocabularyBytes(in_gguf + NUMBER_BYTES * len(tokens), files))
