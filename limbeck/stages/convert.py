"""Convert: a checkpoint in another architecture with the same logits."""

import torch
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Work
from limbeck.contracts.parity import Tolerance
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.logit_parity import compare_models, random_tokens
from limbeck.models.moe.convert_qwen3 import convert
from limbeck.models.moe.layers import Gate
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages.config.convert import Config

NUM_PROMPTS, PROMPT_TOKENS = 8, 32
TOLERANCE = Tolerance(measure="max_logit_difference / max_logit", limit=1e-4)
"""Only the order of float32 sums may differ."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the converted checkpoint; how far its logits lie from the original's.

    Raises:
        CheckpointError: the architecture has no place for what the checkpoint does.
        ParityError: the logits differ by more than rounding.
    """
    folder = work.one("checkpoint").path
    model = load_model(folder)
    metrics: dict[str, float] = {}
    if config.balance_bias == "drop":
        metrics = _drop_balance_bias(model)
    converted = convert(model, architecture=config.architecture)
    save_checkpoint(converted, tokenizer=load_tokenizer(folder), folder=work.folder)
    difference = compare_models(model, load_model(work.folder), input_ids=_probe(model))
    difference.check(
        TOLERANCE,
        fault="the converted model's logits differ",
        advice="The checkpoint holds something that the conversion does not know: use it as it is",
    )
    return {
        "max_logit_difference": difference.max_logit_difference,
        "max_logit": difference.max_logit,
        **metrics,
    }


@torch.no_grad()
def _drop_balance_bias(model: PreTrainedModel) -> dict[str, float]:
    """What dropping changes on random tokens: logits, and the share of picks that others take."""
    before = model(input_ids=_probe(model), use_cache=False)
    for module in model.modules():
        if isinstance(module, Gate):
            module.balance_bias.zero_()
    after = model(input_ids=_probe(model), use_cache=False)
    found = (getattr(output, "routing", None) or () for output in (before, after))
    kept = [
        (old.picked.unsqueeze(2) == new.picked.unsqueeze(1)).any(dim=2).float().mean().item()
        for old, new in zip(*found, strict=True)
    ]
    return {
        "dropped_bias_max_logit_change": (after.logits - before.logits).abs().max().item(),
        "dropped_bias_picks_changed_ratio": 1 - sum(kept) / len(kept) if kept else 0.0,
    }


def _probe(model: PreTrainedModel) -> torch.Tensor:
    vocab = model.config.get_text_config().vocab_size
    return random_tokens(vocab=vocab, num_prompts=NUM_PROMPTS, num_tokens=PROMPT_TOKENS)
