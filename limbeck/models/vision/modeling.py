"""Vision and language: a patch encoder and a projector before any causal language model.

An image becomes a grid of patches (transformers' SigLIP blocks), each 2 x 2 of them one token, and
these stand among the text's tokens where the prompt holds image tokens. Without images the language
model is called as it is.
"""

import json
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    SiglipVisionModel,
)
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast, MoeCausalLMOutputWithPast

from limbeck.contracts.errors import DataError
from limbeck.models.vision.configuration import LimbeckVisionConfig, image_format

PREPROCESSOR = "preprocessor_config.json"
BICUBIC = 3
"""Pillow's number of the resampling that `images.py` uses."""


def merge_patches(
    patches: Float[Tensor, "images patches width"], *, merge: int
) -> Float[Tensor, "images tokens merged"]:
    """Each square of merge x merge neighbours as one vector: space to depth, rows first."""
    side = round(patches.shape[1] ** 0.5)
    grid = patches.unflatten(1, (side // merge, merge, side // merge, merge))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3, 5).flatten(1, 2)


class Projector(nn.Module):
    """Merged patches to the width of the language model: norm, and two linear layers."""

    def __init__(self, *, width: int, merge: int, hidden: int) -> None:
        super().__init__()
        self.merge = merge
        self.norm = nn.LayerNorm(width * merge * merge)
        self.up = nn.Linear(width * merge * merge, hidden)
        self.down = nn.Linear(hidden, hidden)

    def forward(
        self, patches: Float[Tensor, "images patches width"]
    ) -> Float[Tensor, "images tokens hidden"]:
        """The image's tokens."""
        merged = self.norm(merge_patches(patches, merge=self.merge))
        return self.down(functional.gelu(self.up(merged)))


class LimbeckVisionForCausalLM(PreTrainedModel, GenerationMixin):
    """A vision-language model: `generate`, caches and `save_pretrained` as for any other."""

    config: LimbeckVisionConfig
    config_class = LimbeckVisionConfig
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["SiglipEncoderLayer", "MoeLayer"]  # noqa: RUF012

    def __init__(self, config: LimbeckVisionConfig) -> None:
        super().__init__(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.attach_encoder()
        self.post_init()

    def attach_encoder(self) -> None:
        """Put a fresh encoder and projector before the language model."""
        text: Any = self.config.text_config
        vision: Any = self.config.vision_config
        self.vision = SiglipVisionModel(vision)
        self.projector = Projector(
            width=vision.hidden_size, merge=self.config.spatial_merge_size, hidden=text.hidden_size
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: every part starts itself."""

    def get_input_embeddings(self) -> nn.Module:
        """The language model's table of tokens."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table of tokens."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Another head."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> Any:
        """The language model's body."""
        return self.language_model.get_decoder()

    def encode_images(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images tokens hidden"]:
        """The tokens of each image, in the space of the language model's embeddings."""
        return self.projector(self.vision(pixel_values=pixels).last_hidden_state)

    def place_images(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        images: Float[Tensor, "images image_tokens hidden"],
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Embeddings of a text, those of images where it holds image tokens, in reading order.

        Raises:
            DataError: there are more or fewer image tokens than the images fill.
        """
        embedded = self.get_input_embeddings()(input_ids)
        marked = input_ids == self.config.image_token_id
        found, expected = int(marked.sum()), images.shape[0] * images.shape[1]
        if found != expected:
            raise DataError(
                f"the prompts hold {found} image tokens, {images.shape[0]} images fill {expected}; "
                "do not write the image token in a question, and raise max_tokens if it was cut"
            )
        filled = images.flatten(0, 1).to(embedded.dtype)
        return embedded.masked_scatter(marked.unsqueeze(-1), filled)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> CausalLMOutputWithPast | MoeCausalLMOutputWithPast:
        """The language model's output; `pixel_values` are the prompts' images in reading order."""
        if pixel_values is not None:
            assert input_ids is not None
            inputs_embeds = self.place_images(input_ids, self.encode_images(pixel_values))
            input_ids = None
        return self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The inputs of one step of `generate`: images go in with the prompt, then never again."""
        pixels = kwargs.pop("pixel_values", None)
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if kwargs.get("is_first_iteration") or not kwargs.get("use_cache", True):
            inputs["pixel_values"] = pixels
        return inputs


def write_preprocessor(config: LimbeckVisionConfig, folder: Path) -> None:
    """How images are read, as transformers' `SiglipImageProcessor` describes itself."""
    found = image_format(config)
    assert found is not None
    description = {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": found.channels == 3,
        "do_resize": True,
        "size": {"height": found.side_pixels, "width": found.side_pixels},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [found.mean] * found.channels,
        "image_std": [found.std] * found.channels,
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / PREPROCESSOR).write_text(text, encoding="utf-8")


AutoModelForCausalLM.register(LimbeckVisionConfig, LimbeckVisionForCausalLM)
