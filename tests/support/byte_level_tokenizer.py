"""Byte-level BPE tokenizers, as published models have, trained on the built-in knowledge."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from limbeck.packs import folder

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[reply]\n{% endif %}"
)


def pack_lines():
    """The built-in knowledge as lines of text, mostly Chinese."""
    paths = sorted(folder("medical").glob("facts/*.yaml"))
    return [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def train_byte_level(texts, *, num_tokens, trim=False):
    """A byte-level BPE with a chat template of its own; `trim` leaves spaces out of offsets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=num_tokens,
        initial_alphabet=alphabet,
        special_tokens=["<pad>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast
