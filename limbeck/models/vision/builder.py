"""Vision-language models by description: a language model with an image encoder, fresh or not."""

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.config import EncoderConfig
from limbeck.models.vision.modeling import LimbeckVisionForCausalLM


def add_encoder(
    text: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase, config: EncoderConfig, seed: int
) -> PreTrainedModel:
    """The language model, untouched, behind an untrained encoder; the tokenizer may grow.

    A token for images is added to the tokenizer, and a row to the embeddings, where they lack it.

    Raises:
        CheckpointError: the model has an image encoder already.
    """
    if isinstance(text, LimbeckVisionForCausalLM):
        raise CheckpointError(
            "the checkpoint has an image encoder already; train it further, or extend the "
            "checkpoint that it was made from"
        )
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    token = tokenizer.get_vocab()[IMAGE_TOKEN]
    rows = text.config.get_text_config().vocab_size
    torch.manual_seed(seed)
    if token >= rows:
        text.resize_token_embeddings(token + 1, mean_resizing=False)
    text.config._name_or_path = ""  # a path of this machine would change the artifact's hash
    described = config.describe(text.config, image_token_id=token)
    # Empty first: a second language model would be thrown away, and may not fit.
    with torch.device("meta"):
        model = LimbeckVisionForCausalLM(described)
    model.language_model = text
    model.attach_encoder()
    model.generation_config = text.generation_config
    return model.eval()
