"""Fresh models with the weights that their seed draws."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.models.config import ModelConfig
from limbeck.models.vocabulary import Vocabulary


def build_fresh(
    architecture: type[PreTrainedModel],
    description: ModelConfig,
    *,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> PreTrainedModel:
    """A model of the architecture with fresh weights, the same for the same seed."""
    torch.manual_seed(seed)
    return architecture(description.describe(Vocabulary.of(tokenizer)))
