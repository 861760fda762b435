"""The models and the corpus that `distill_step.py` trains on, written into a folder."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.artifacts import Artifact, Manifest, Work
from limbeck.contracts.records import Record, write_jsonl
from limbeck.data.corpus.train_tokenizer import ASSISTANT, CHAT_TEMPLATE, END, PAD, USER
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.checkpoints import save_checkpoint
from limbeck.stages import record

DEVICE = "cuda" if any("cuda" in item for item in sys.argv[1:]) else "cpu"
VOCAB = {"cpu": 8192, "cuda": 151_936}[DEVICE]
SIZES: dict[str, dict[str, int]] = {
    "cpu": {
        "student": {
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 32,
        },
        "teacher": {
            "hidden_size": 384,
            "intermediate_size": 1152,
            "num_hidden_layers": 10,
            "num_attention_heads": 12,
            "num_key_value_heads": 6,
            "head_dim": 32,
        },
    },
    "cuda": {
        "student": {
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
        },
        "teacher": {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
    },
}[DEVICE]
MEDIAN_TOKENS = {"question": 40, "answer": 60}
SPREAD = 0.8
"""Standard deviation of the logarithm of a length."""
MOST_TOKENS = {"question": 200, "answer": 300}
NUM_RECORDS = 512
BATCHING = BatchingConfig(per_device_train_batch_size=4, gradient_accumulation_steps=4)


def make_folders(folder: Path) -> None:
    """A corpus, a student, a teacher, and the teacher's signals."""
    corpus, generator = folder / "corpus", np.random.default_rng(0)
    (corpus / "records").mkdir(parents=True)
    tokenizer = _make_tokenizer()
    tokenizer.save_pretrained(corpus / "tokenizer")
    records = [
        Record(
            f"r{index}",
            _write_text("question", generator),
            _write_text("answer", generator),
            group=f"r{index}",
            source="drawn",
        )
        for index in range(NUM_RECORDS)
    ]
    write_jsonl(corpus / "records" / "train.jsonl", records)
    _write_manifest(corpus, "corpus")
    for name, size in SIZES.items():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(
            Qwen3Config(**size, vocab_size=VOCAB, tie_word_embeddings=True, pad_token_id=0)  # pyright: ignore[reportArgumentType, reportCallIssue]
        )
        save_checkpoint(model, tokenizer=tokenizer, folder=folder / name)
        _write_manifest(folder / name, "checkpoint")
    (folder / "signals").mkdir()
    config = record.Config.model_validate(
        {
            "stage": "record",
            "teacher": "teacher",
            "corpus": "corpus",
            "batching": BATCHING.model_dump(),
        }
    )
    inputs = {name: (open_artifact(folder / name),) for name in ("teacher", "corpus")}
    record.run(config, work=Work("signals", folder / "signals", folder, inputs))
    _write_manifest(folder / "signals", "signals")


def _make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    special = [PAD, USER, ASSISTANT, END]
    words = [*special, *(f"w{index}" for index in range(VOCAB - len(special)))]
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, PAD))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        unk_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _write_text(part: str, generator: np.random.Generator) -> str:
    length = generator.lognormal(np.log(MEDIAN_TOKENS[part]), SPREAD)
    num_tokens = int(np.clip(length, 4, MOST_TOKENS[part]))
    return " ".join(f"w{index}" for index in generator.integers(0, VOCAB - 4, num_tokens))


def _write_manifest(folder: Path, kind: Any) -> None:
    manifest = Manifest(
        name=folder.name,
        kind=kind,
        stage="",
        key="",
        content_hash=folder.name,
        parents={},
        sources={},
        recipe={},
        versions={},
        files={},
        metrics={},
        seconds=0,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def open_artifact(folder: Path) -> Artifact:
    text = (folder / "manifest.json").read_text()
    return Artifact(folder, Manifest.model_validate(json.loads(text)))
