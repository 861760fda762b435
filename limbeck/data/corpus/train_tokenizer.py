"""Training a tokenizer on a corpus: characters for Chinese, pieces for Latin, bytes for the rest.

A byte-level BPE trained on templated questions merges whole phrases into tokens and then fails on
phrasings it has not seen; single Chinese characters do not.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from limbeck.contracts.errors import DataError
from limbeck.data.corpus.config import TokenizerConfig

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(
    texts: Iterable[str], *, folder: Path, config: TokenizerConfig, special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """The tokenizer trained on the texts, which is also written to the folder.

    `special` are further tokens with a meaning of their own.

    Raises:
        DataError: there is no text to train on.
    """
    characters: Counter[str] = Counter()
    latin: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
        latin.update(run for run in _latin_runs(text) if len(run) > 1)
    if not characters:
        raise DataError("no text to train a tokenizer on: every record was dropped")
    kept = sorted(char for char, count in characters.items() if count >= config.min_count)
    merges = _train_merges(latin, num_merges=config.num_merges)
    vocab: dict[str, int] = {}
    for token in [PAD, USER, ASSISTANT, END, *special, *BYTES, *kept]:
        vocab.setdefault(token, len(vocab))
    known_merges = []
    for left, right in merges:
        if left in vocab and right in vocab:
            vocab.setdefault(left + right, len(vocab))
            known_merges.append((left, right))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=known_merges, byte_fallback=True, unk_token=None)
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[^A-Za-z0-9]"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, *special],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def _latin_runs(text: str) -> list[str]:
    return "".join(char if char.isascii() and char.isalnum() else " " for char in text).split()


def _train_merges(runs: Counter[str], *, num_merges: int) -> list[tuple[str, str]]:
    if not runs or not num_merges:
        return []
    alphabet = {char for run in runs for char in run}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = BpeTrainer(
        vocab_size=len(alphabet) + num_merges,
        min_frequency=5,
        show_progress=False,
        initial_alphabet=sorted(alphabet),
    )
    # Sorted, so that ties are broken the same way in every run.
    learner.train_from_iterator((run for run in sorted(runs.elements())), trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]
