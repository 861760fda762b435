"""Extend: a text checkpoint with an untrained image encoder; its outputs on text stay the same."""

from limbeck.contracts.artifacts import Work
from limbeck.contracts.parity import Tolerance, compare_logits
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.logit_parity import compute_logits, random_tokens
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.builder import add_encoder
from limbeck.stages.config.extend import Config

NUM_PROMPTS, PROMPT_TOKENS = 4, 16
IDENTICAL = Tolerance(measure="max_logit_difference", limit=0)


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the checkpoint; how many parameters the encoder has.

    Raises:
        CheckpointError: the checkpoint has an image encoder already.
        ParityError: its logits of text are no longer the same to the bit.
    """
    folder = work.one("checkpoint").path
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    vocab = model.config.get_text_config().vocab_size
    before = sum(item.numel() for item in model.parameters())
    ids = random_tokens(vocab=vocab, num_prompts=NUM_PROMPTS, num_tokens=PROMPT_TOKENS)
    expected = compute_logits(model, input_ids=ids)
    extended = add_encoder(model, tokenizer=tokenizer, config=config.encoder, seed=config.seed)
    found = compute_logits(extended, input_ids=ids)
    # A larger vocabulary makes other products, which round in another way.
    if found.shape == expected.shape:
        compare_logits([(expected, found)]).check(
            IDENTICAL, fault="the extended model answers text differently", advice="Report this"
        )
    save_checkpoint(extended, tokenizer=tokenizer, folder=work.folder)
    after = sum(item.numel() for item in extended.parameters())
    return {"parameters": after, "encoder_parameters": after - before}
