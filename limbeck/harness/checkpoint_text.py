"""A checkpoint's tokenizer as a harness needs it: whatever transformers can load."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers import GenerationConfig

from limbeck.harness.model_text import ModelText
from limbeck.models.chat_tokens import chat_template_of, encode_texts, end_token_ids
from limbeck.models.tokenizers import has_template, load_tokenizer
from limbeck.models.vocabulary import Vocabulary, as_token_ids


def read_checkpoint_text(folder: Path) -> ModelText:
    """The tokenizer of a checkpoint; a base model's has no template.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    tokenizer = load_tokenizer(folder)
    vocabulary = Vocabulary.of(tokenizer)
    prefix_id = vocabulary.bos_token_id
    prefix_id = vocabulary.eos_token_id if prefix_id is None else prefix_id
    assert prefix_id is not None, "load_tokenizer refuses a tokenizer without an end token"
    listed = ()
    if (folder / "generation_config.json").is_file():
        listed = as_token_ids(GenerationConfig.from_pretrained(folder).eos_token_id)

    def decode(ids: Sequence[int]) -> str:
        text = tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    return ModelText(
        encode=lambda text: encode_texts(tokenizer, [text])[0],
        encode_whole=lambda text: cast(list[int], tokenizer.encode(text)),
        decode=decode,
        prefix_id=prefix_id,
        prefix=str(tokenizer.decode([prefix_id])),
        end_ids=end_token_ids(tokenizer, listed=listed),
        special_ids={
            token.content: id_
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.special
        },
        num_tokens=len(tokenizer),
        template=chat_template_of(tokenizer) if has_template(folder) else None,
    )
