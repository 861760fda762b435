"""Extend: a text checkpoint with an untrained image encoder; what it says about text stays."""

from typing import Any, ClassVar, Literal

import torch

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.errors import ParityError
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.batch import random_tokens
from limbeck.models.checkpoints import load_model, load_tokenizer, save_checkpoint
from limbeck.models.vision.builder import EncoderConfig, add_encoder

NUM_PROMPTS, PROMPT_TOKENS = 4, 16


class Config(StageConfig):
    """Give a text checkpoint an untrained image encoder."""

    make: ClassVar[Kind] = "checkpoint"
    stage: Literal["extend"]
    checkpoint: CheckpointRef
    encoder: EncoderConfig = EncoderConfig()
    seed: int = 0
    """Of the encoder's fresh weights."""


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the checkpoint; how many parameters the encoder has.

    Raises:
        CheckpointError: the checkpoint sees already.
        ParityError: its logits of text are no longer the same to the bit.
    """
    folder = work.one("checkpoint").path
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    vocab = model.config.get_text_config().vocab_size
    before = sum(item.numel() for item in model.parameters())
    ids = random_tokens(vocab=vocab, num_prompts=NUM_PROMPTS, num_tokens=PROMPT_TOKENS)
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        seeing = add_encoder(model, tokenizer=tokenizer, config=config.encoder, seed=config.seed)
        found = seeing(input_ids=ids, use_cache=False).logits
    if found.shape == expected.shape and not torch.equal(found, expected):
        raise ParityError("the extended model answers text differently; report this")
    save_checkpoint(seeing, tokenizer=tokenizer, folder=work.folder)
    after = sum(item.numel() for item in seeing.parameters())
    return {"parameters": after, "encoder_parameters": after - before}
