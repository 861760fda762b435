"""The tokenizer's part of a bundle: its own files, from which a device renders prompts.

Every writer of bundles uses it. Left out: reading them (`read_chat`).
"""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from limbeck.contracts.answerer import alternate
from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.chat_tokens import end_token_ids
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vocabulary import as_token_ids
from limbeck.runtimes.chat import read_chat

GENERATION = "generation_config.json"
PROBES = (
    ("",),
    ("What are the symptoms of asthma, 3 of them?",),
    ("高血压 (BP > 140/90 mmHg)?\n 怎么办",),
    ("  à",),
    ("高血压有哪些症状？", "头晕、心悸。", "And what else?"),
)
"""Conversations that the bundle's own tokenizer must render as transformers does."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, *, place: str | Path) -> None:
    """Accept a tokenizer that a bundle can carry.

    Raises:
        CheckpointError: it is Python code of transformers, without a `tokenizer.json`.
    """
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{place}: its tokenizer, a {type(tokenizer).__name__}, is code of transformers, and a "
            "bundle carries a tokenizer.json; distil it into a student of another tokenizer, or "
            "answer from the checkpoint"
        )


def write_tokenizer(checkpoint: Path, folder: Path) -> None:
    """Write a checkpoint's tokenizer, chat template and end tokens into a bundle.

    Raises:
        CheckpointError: a file of the checkpoint is damaged, or as `check_tokenizer`.
        ParityError: the files alone render a prompt differently from transformers.
    """
    tokenizer = load_tokenizer(checkpoint)
    check_tokenizer(tokenizer, place=checkpoint)
    tokenizer.save_pretrained(folder)
    path = checkpoint / GENERATION
    try:
        generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); copy it again") from None
    listed = as_token_ids(generation.get("eos_token_id"))
    generation["eos_token_id"] = list(end_token_ids(tokenizer, listed=listed))
    text = json.dumps(generation, indent=2, sort_keys=True) + "\n"
    (folder / GENERATION).write_text(text, encoding="utf-8")
    chat = read_chat(folder)
    for turns in PROBES:
        messages = alternate(turns)
        expected = tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        found = chat.encode(chat.template.render(messages))
        if found != expected:
            raise ParityError(
                f"{checkpoint}: the tokenizer's files alone render {turns!r} as {found}, "
                f"transformers as {expected}; this tokenizer needs code that a bundle does not "
                "carry"
            )
