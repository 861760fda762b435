"""Merge: a model and an adapter that was trained beside it as one checkpoint."""

import logging

from limbeck.contracts.artifacts import Work
from limbeck.contracts.parity import compare_logits
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.logit_parity import compute_logits, random_tokens, tolerance_of
from limbeck.models.saved_adapters import (
    find_misfit,
    has_tokenizer,
    load_adapted,
    merge_adapted,
    read_base,
)
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages.config.merge import Config

logger = logging.getLogger(__name__)
NUM_PROMPTS, PROMPT_TOKENS = 4, 32


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the merged checkpoint; how far its logits lie from the adapted model's.

    Its tokenizer is the adapter's own, where that is saved beside it.

    Raises:
        CheckpointError: the adapter is damaged, or belongs to another model.
        ParityError: the logits differ by more than rounding.
    """
    base = read_base(config.adapter)
    folder = work.one("checkpoint").path
    model = load_model(folder)
    find_misfit(config.adapter, model=model)
    logger.info("%s: trained beside %s", config.adapter, base or "a model that it does not name")
    tokenizer = load_tokenizer(config.adapter if has_tokenizer(config.adapter) else folder)
    tolerance = tolerance_of(model)
    adapted = load_adapted(model, folder=config.adapter)
    vocab = model.config.get_text_config().vocab_size
    probe = random_tokens(vocab=vocab, num_prompts=NUM_PROMPTS, num_tokens=PROMPT_TOKENS)
    # The adapters are within the model now.
    expected = compute_logits(model.eval(), input_ids=probe)
    save_checkpoint(merge_adapted(adapted), tokenizer=tokenizer, folder=work.folder)
    found = compute_logits(load_model(work.folder), input_ids=probe)
    difference = compare_logits([(expected, found)])
    difference.check(
        tolerance,
        fault="the merged model's logits differ from the adapted one's",
        advice="The adapter holds something that merging does not know: merge it with peft",
    )
    return {
        "base": base,
        "max_logit_difference": difference.max_logit_difference,
        "max_logit": difference.max_logit,
    }
