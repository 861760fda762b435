"""Convert: a checkpoint in another architecture with the same logits.

Left out: the exchange of tensors (`limbeck.models.interchange`), and bundles (`export.py`).
"""

from typing import Any, ClassVar, Literal

import torch
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.errors import ParityError
from limbeck.contracts.stage import CheckpointRef, StageConfig
from limbeck.models.interchange import Architecture, convert
from limbeck.models.loading import load_model, load_tokenizer, save_checkpoint

NUM_PROMPTS, PROMPT_TOKENS = 8, 32
MOST_DIFFERENCE = 1e-4
"""Of the largest logit; only the order of float32 sums may differ."""


class Config(StageConfig):
    """Write a mixture as stock transformers reads it, or a published one as our mixture."""

    make: ClassVar[Kind] = "checkpoint"
    stage: Literal["convert"]
    checkpoint: CheckpointRef
    architecture: Architecture
    """What comes out: `qwen3_moe` for stock transformers, `limbeck_moe` for the way back."""


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the converted checkpoint; how far its logits lie from the original's.

    Raises:
        CheckpointError: the architecture has no place for what the checkpoint does.
        ParityError: the logits differ by more than rounding.
    """
    folder = work.one("checkpoint").path
    model = load_model(folder)
    converted = convert(model, architecture=config.architecture)
    save_checkpoint(converted, tokenizer=load_tokenizer(folder), folder=work.folder)
    difference, largest = compare_logits(model, load_model(work.folder))
    # Not `difference > ...`: that would let a NaN pass.
    if not difference <= MOST_DIFFERENCE * largest:
        raise ParityError(
            f"the converted model's logits differ by {difference:.3g} where the largest is "
            f"{largest:.3g}, expected at most {MOST_DIFFERENCE:g} of it; the checkpoint holds "
            "something that the conversion does not know: use it as it is"
        )
    return {"max_logit_difference": difference, "max_logit": largest}


@torch.no_grad()
def compare_logits(first: PreTrainedModel, second: PreTrainedModel) -> tuple[float, float]:
    """The largest difference of two models' logits on random tokens, and the largest logit."""
    generator = torch.Generator().manual_seed(0)
    vocab = first.config.get_text_config().vocab_size
    ids = torch.randint(vocab, (NUM_PROMPTS, PROMPT_TOKENS), generator=generator)
    expected = first(input_ids=ids, use_cache=False).logits.float()
    found = second(input_ids=ids, use_cache=False).logits.float()
    return (found - expected).abs().max().item(), expected.abs().max().item()
