"""Sizes of a vision-language model, as transformers stores them."""

from typing import Any, ClassVar, no_type_check

from huggingface_hub.dataclasses import strict
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    SiglipVisionConfig,
)

from limbeck.models.config import VISION_TYPE
from limbeck.models.vision.image_processing import ImageFormat


@no_type_check  # `strict` checks every field itself, and wants to make the constructor
@strict
class LimbeckVisionConfig(PreTrainedConfig):
    """A language model's config, an encoder's, and how images go from one to the other."""

    model_type = VISION_TYPE
    sub_configs: ClassVar[Any] = {"text_config": AutoConfig, "vision_config": SiglipVisionConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    image_token_id: int = 0
    spatial_merge_size: int = 2
    """Patches along either side of the square that becomes one token."""
    image_mean: float = 0.5
    image_std: float = 0.5
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Configs from the plain data of `config.json`."""
        if isinstance(self.text_config, dict):
            self.text_config = AutoConfig.for_model(**self.text_config)
        if isinstance(self.vision_config, dict):
            self.vision_config = SiglipVisionConfig(**self.vision_config)
        super().__post_init__(**kwargs)


def image_format(config: PreTrainedConfig) -> ImageFormat | None:
    """How a model reads images; None for one that reads none."""
    if not isinstance(config, LimbeckVisionConfig):
        return None
    vision: Any = config.vision_config
    side = vision.image_size // vision.patch_size // config.spatial_merge_size
    return ImageFormat(
        side_pixels=vision.image_size,
        channels=vision.num_channels,
        mean=config.image_mean,
        std=config.image_std,
        num_tokens=side * side,
        token_id=config.image_token_id,
    )


AutoConfig.register(VISION_TYPE, LimbeckVisionConfig)
