"""What sizing reads of a described decoder's config, without transformers, which is slow to import.

The fields have transformers' names and hold what the config that the description makes holds. Left
out: fields that only a forward pass reads, and every architecture that no recipe describes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SizedConfig: TypeAlias = "PreTrainedConfig | DecoderSizes"
"""What can be sized: any config of transformers, or the sizes of a described decoder."""


@final
@dataclass
class DecoderSizes:
    """The part of a Qwen3 decoder's or of our mixture's config that decides what it costs.

    0 or '' stands for a field that the architecture does not have.
    """

    model_type: Literal["qwen3", "limbeck_moe"]
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    intermediate_size: int = 0
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    n_shared_experts: int = 0
    fusion: str = ""
    fusion_heads: int = 0
    fusion_rank: int = 0
    attention_bias: Literal[False] = False
    sliding_window: None = None
    dtype: None = None

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], *, model_type: Literal["qwen3", "limbeck_moe"]
    ) -> "DecoderSizes":
        """The sizes among the settings that a transformers config would be made with."""
        names = {field.name for field in fields(cls)}
        sizes = {name: value for name, value in settings.items() if name in names}
        return cls(model_type=model_type, **sizes)

    @property
    def layer_types(self) -> list[str] | None:
        """How each layer attends, as Qwen3 states it; our mixture's config has no such field."""
        attends_to_all = ["full_attention"] * self.num_hidden_layers
        return attends_to_all if self.model_type == "qwen3" else None

    def get_text_config(self) -> "DecoderSizes":
        """Itself: a described decoder reads nothing but text."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)
