"""Fresh models by description: mixtures of experts, dense decoders, vision-language models."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat, PositiveInt
from limbeck.models.chat import IMAGE_TOKEN
from limbeck.models.decoder_sizes import DecoderSizes

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from limbeck.models.vision.configuration import LimbeckVisionConfig
    from limbeck.models.vocabulary import Vocabulary

LogitsForm = Literal["full", "factored", "auto"]
"""How logits are returned; `auto` is factored from `LARGE_VOCAB` tokens on."""


LARGE_VOCAB = 32_768
"""Tokens from which all logits are worth not being held at once."""


FusionKind = Literal["weighted_sum", "attention", "full_attention"]


MoeArchitecture = Literal["qwen3_moe", "limbeck_moe"]


Ability = Literal["cut_channels", "cut_heads", "route", "give_experts", "be_exported"]
"""What a described model is known to be fit for, so that its layers need not be built to see it."""
EXPORTED_HEAD_MULTIPLE = 16
"""Of the width of attention heads that a runtime's attention takes."""


Multiple4 = Annotated[int, Field(gt=0, multiple_of=4)]
"""Widths of grouped products: rows must start at multiples of 16 bytes."""


class ModelConfig(Config):
    """Base of every description of a fresh model."""

    kind: str
    """The description's name in the registry."""

    @property
    @abstractmethod
    def sets_rotary(self) -> bool:
        """Whether the rotary embedding is asked for, rather than left to the default."""

    @property
    @abstractmethod
    def text_decoder(self) -> "Decoder":
        """The decoder that reads text: itself, or a part of it."""

    @property
    @abstractmethod
    def abilities(self) -> frozenset[Ability]:
        """What it is known to be fit for; anything else is found out from its layers."""

    @abstractmethod
    def describe(self, vocabulary: "Vocabulary") -> "PreTrainedConfig":
        """The transformers config, without building anything."""

    @abstractmethod
    def build(self, *, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
        """A model with fresh weights, the same for the same seed."""


class Decoder(ModelConfig):
    """What the dense and the sparse decoder have in common."""

    hidden_size: Multiple4
    """Width of the residual stream."""
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    """Query heads."""
    num_key_value_heads: PositiveInt
    """Key-value heads; each serves num_attention_heads / num_key_value_heads
    query heads."""
    head_dim: Annotated[int, Field(gt=0, multiple_of=2)]
    """Width of one attention head."""
    max_position_embeddings: PositiveInt = 2048
    """Longest sequence, in tokens."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of fresh weights."""
    rope_theta: PositiveFloat = 10000.0
    """Base wavelength of the rotary embedding, in tokens."""

    @property
    @override
    def sets_rotary(self) -> bool:
        return "rope_theta" in self.model_fields_set

    @property
    @override
    def text_decoder(self) -> "Decoder":
        return self

    @abstractmethod
    def sizes(self, vocabulary: "Vocabulary") -> DecoderSizes:
        """What sizing reads of the transformers config, without importing transformers."""

    def _shared(self, vocabulary: "Vocabulary") -> dict[str, Any]:
        return {
            "vocab_size": len(vocabulary),
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "initializer_range": self.initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": True,
            "pad_token_id": vocabulary.pad_token_id,
            "bos_token_id": vocabulary.bos_token_id,
            "eos_token_id": vocabulary.eos_token_id,
        }


class MoeModel(Decoder):
    """A mixture-of-experts decoder (`limbeck_moe`)."""

    kind: Literal["moe"]
    num_experts: PositiveInt = 128
    num_experts_per_tok: PositiveInt = 2
    moe_intermediate_size: Multiple4
    """Feed-forward channels of one expert."""
    n_shared_experts: NonNegativeInt = 0
    """Experts that every token passes, beside those that it picks; none is dropped or balanced."""
    scoring_func: Literal["softmax", "sigmoid"] = "softmax"
    """How the gate's logits become scores; sigmoid scores do not compete with each other."""
    norm_topk_prob: bool = True
    """Whether the picked experts' weights are scaled to sum to one."""
    routed_scaling_factor: PositiveFloat = 1.0
    """Factor of the picked experts' weights."""
    n_group: PositiveInt = 1
    """Groups that the experts are divided into, as over the machines that hold them."""
    topk_group: PositiveInt = 1
    """A token picks its experts from so many groups."""
    fusion: FusionKind = "weighted_sum"
    """How the outputs of a token's experts become one."""
    fusion_heads: PositiveInt = 4
    """Heads of either attention."""
    fusion_rank: PositiveInt = 16
    """Channels of a head's scores in low-rank `attention`."""

    @model_validator(mode="after")
    def _check_shapes(self) -> "MoeModel":
        if self.num_experts % self.n_group:
            raise ValueError(
                f"num_experts {self.num_experts} cannot be divided into n_group "
                f"{self.n_group}: make it a multiple"
            )
        reachable = self.num_experts // self.n_group * min(self.topk_group, self.n_group)
        if self.topk_group > self.n_group or self.num_experts_per_tok > reachable:
            raise ValueError(
                f"a token picks {self.num_experts_per_tok} experts from {self.topk_group} of "
                f"{self.n_group} groups, which hold {reachable}: raise topk_group, at "
                "most to n_group, or lower num_experts_per_tok"
            )
        if self.fusion != "weighted_sum" and self.hidden_size % self.fusion_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be divided among fusion_heads "
                f"{self.fusion_heads}"
            )
        return self

    @property
    @override
    def abilities(self) -> frozenset[Ability]:
        found: set[Ability] = {"route", "give_experts"}
        if self.fusion == "weighted_sum" and self.head_dim % EXPORTED_HEAD_MULTIPLE == 0:
            found.add("be_exported")
        return frozenset(found)

    @override
    def describe(self, vocabulary: "Vocabulary") -> "PreTrainedConfig":
        from limbeck.models.moe.configuration import LimbeckMoeConfig

        return LimbeckMoeConfig(**self._settings(vocabulary))

    @override
    def sizes(self, vocabulary: "Vocabulary") -> DecoderSizes:
        return DecoderSizes.of(self._settings(vocabulary), model_type="limbeck_moe")

    def _settings(self, vocabulary: "Vocabulary") -> dict[str, Any]:
        return {
            **self._shared(vocabulary),
            "num_experts": self.num_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "moe_intermediate_size": self.moe_intermediate_size,
            "scoring_func": self.scoring_func,
            "norm_topk_prob": self.norm_topk_prob,
            "routed_scaling_factor": self.routed_scaling_factor,
            "n_group": self.n_group,
            "topk_group": self.topk_group,
            "n_shared_experts": self.n_shared_experts,
            "fusion": self.fusion,
            "fusion_heads": self.fusion_heads,
            "fusion_rank": self.fusion_rank,
        }

    @override
    def build(self, *, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
        from limbeck.models.builders import build_fresh
        from limbeck.models.moe.modeling import LimbeckMoeForCausalLM

        return build_fresh(LimbeckMoeForCausalLM, self, tokenizer=tokenizer, seed=seed)


class DenseModel(Decoder):
    """A dense decoder in a standard architecture (`Qwen3ForCausalLM`)."""

    kind: Literal["dense"]
    intermediate_size: Multiple4
    """Feed-forward channels of one layer."""

    @property
    @override
    def abilities(self) -> frozenset[Ability]:
        found: set[Ability] = {"cut_channels"}
        if self.num_attention_heads % self.num_key_value_heads == 0:
            found.add("cut_heads")
        if self.head_dim % EXPORTED_HEAD_MULTIPLE == 0:
            found.add("be_exported")
        return frozenset(found)

    @override
    def describe(self, vocabulary: "Vocabulary") -> "PreTrainedConfig":
        from transformers import Qwen3Config

        return Qwen3Config(**self._settings(vocabulary))

    @override
    def sizes(self, vocabulary: "Vocabulary") -> DecoderSizes:
        return DecoderSizes.of(self._settings(vocabulary), model_type="qwen3")

    def _settings(self, vocabulary: "Vocabulary") -> dict[str, Any]:
        return {**self._shared(vocabulary), "intermediate_size": self.intermediate_size}

    @override
    def build(self, *, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
        from transformers import Qwen3ForCausalLM

        from limbeck.models.builders import build_fresh

        return build_fresh(Qwen3ForCausalLM, self, tokenizer=tokenizer, seed=seed)


VISION_TYPE = "limbeck_vision"
"""The `model_type` of models that read images."""


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

    def describe(self, text: "PreTrainedConfig", *, image_token_id: int) -> "LimbeckVisionConfig":
        """The config of a language model with this encoder."""
        from transformers import SiglipVisionConfig

        from limbeck.models.vision.configuration import LimbeckVisionConfig

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

    @property
    @override
    def sets_rotary(self) -> bool:
        return self.text.sets_rotary

    @property
    @override
    def text_decoder(self) -> Decoder:
        return self.text

    @property
    @override
    def abilities(self) -> frozenset[Ability]:
        return frozenset()

    @override
    def describe(self, vocabulary: "Vocabulary") -> "PreTrainedConfig":
        token = vocabulary.image_token_id
        return self.encoder.describe(
            self.text.describe(vocabulary), image_token_id=0 if token is None else token
        )

    @override
    def build(self, *, tokenizer: "PreTrainedTokenizerBase", seed: int) -> "PreTrainedModel":
        """A model with fresh weights, the same for the same seed.

        Raises:
            CheckpointError: the tokenizer has no token for images.
        """
        from limbeck.models.vision.builder import add_encoder

        text = self.text.build(tokenizer=tokenizer, seed=seed)
        if IMAGE_TOKEN not in tokenizer.get_vocab():
            raise CheckpointError(
                f"the corpus's tokenizer has no token {IMAGE_TOKEN!r}, so it holds no images; "
                "give it a source with images, or build the model without an encoder"
            )
        return add_encoder(text, tokenizer=tokenizer, config=self.encoder, seed=seed)


PLAIN_HEADS = frozenset(
    {
        "limbeck_moe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "llama",
        "mistral",
        "mixtral",
        "olmoe",
        "deepseek_v3",
    }
)
"""Architectures whose logits are exactly the head's product, with no scaling or capping after."""


GroupKind = Literal["channels", "heads", "experts", "layers", "hidden"]
