"""Models that see, by description: an image encoder for a language model, fresh or trained."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SiglipVisionConfig,
)
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import PositiveInt
from limbeck.models.builders import DenseModel, ModelConfig, MoeModel
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.vision.modeling import LimbeckVisionConfig, LimbeckVisionForCausalLM
from limbeck.models.vocabulary import Vocabulary


class EncoderConfig(Config):
    """An image encoder of transformers' SigLIP blocks, and how its patches become tokens."""

    image_size: PositiveInt = 32
    """Side of the square that every image is resized to."""
    num_channels: Literal[1, 3] = 1
    """1 reads images as grey, 3 as colour."""
    patch_size: PositiveInt = 4
    """Side of one patch."""
    spatial_merge_size: PositiveInt = 2
    """Patches along either side of the square that becomes one token."""
    hidden_size: PositiveInt = 64
    """Width of the encoder."""
    num_hidden_layers: PositiveInt = 4
    num_attention_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 256
    """Feed-forward channels of one layer."""

    @model_validator(mode="after")
    def _check_shapes(self) -> "EncoderConfig":
        square = self.patch_size * self.spatial_merge_size
        if self.image_size % square:
            raise ValueError(
                f"image_size {self.image_size} cannot be divided into squares of "
                f"{self.spatial_merge_size} x {self.spatial_merge_size} patches of "
                f"{self.patch_size} pixels: make it a multiple of {square}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be divided among num_attention_heads "
                f"{self.num_attention_heads}"
            )
        return self

    def describe(self, text: PreTrainedConfig, *, image_token_id: int) -> LimbeckVisionConfig:
        """The config of a language model with this encoder."""
        vision = SiglipVisionConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_channels=self.num_channels,
            image_size=self.image_size,
            patch_size=self.patch_size,
            vision_use_head=False,
        )
        special: dict[str, Any] = {
            name: getattr(text, name, None)
            for name in ("pad_token_id", "bos_token_id", "eos_token_id")
        }
        return LimbeckVisionConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=image_token_id,
            spatial_merge_size=self.spatial_merge_size,
            tie_word_embeddings=text.tie_word_embeddings,
            **special,
        )


class VisionModel(ModelConfig):
    """A fresh language model with an image encoder (`limbeck_vision`)."""

    kind: Literal["vision"]
    text: Annotated[MoeModel | DenseModel, Field(discriminator="kind")]
    encoder: EncoderConfig = EncoderConfig()

    @override
    def describe(self, vocabulary: Vocabulary) -> PreTrainedConfig:
        token = vocabulary.image_token_id
        return self.encoder.describe(
            self.text.describe(vocabulary), image_token_id=0 if token is None else token
        )

    @override
    def build(self, *, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
        """A model with fresh weights, the same for the same seed.

        Raises:
            CheckpointError: the tokenizer has no token for images.
        """
        text = self.text.build(tokenizer=tokenizer, seed=seed)
        if IMAGE_TOKEN not in tokenizer.get_vocab():
            raise CheckpointError(
                f"the corpus's tokenizer has no token {IMAGE_TOKEN!r}, so it holds no images; "
                "give it a source with images, or build the model without an encoder"
            )
        return add_encoder(text, tokenizer=tokenizer, config=self.encoder, seed=seed)


def add_encoder(
    text: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase, config: EncoderConfig, seed: int
) -> PreTrainedModel:
    """The language model, untouched, behind an untrained encoder; the tokenizer may grow.

    A token for images is added to the tokenizer, and a row to the embeddings, where they lack it.

    Raises:
        CheckpointError: the model sees already.
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
