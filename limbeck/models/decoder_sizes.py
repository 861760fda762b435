"""What sizing reads of a described decoder's config, without transformers, which is slow to import.

The fields have transformers' names and hold what the config that the description makes holds. Left
out: fields that only a forward pass reads, and every architecture that no recipe describes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, final, get_args

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SizedConfig: TypeAlias = "PreTrainedConfig | DecoderSizes"
"""What can be sized: any config of transformers, or the sizes of a described decoder."""
DenseFamily = Literal["qwen3", "qwen2", "llama", "mistral"]
"""Dense decoders whose parameters are listed without building them."""
SizedType = Literal["qwen3", "qwen2", "llama", "mistral", "limbeck_moe"]
STATED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    "tie_word_embeddings",
)
"""Fields that every config of these families is published with."""
BIASES = ("attention_bias", "mlp_bias")
"""Fields that add parameters where they are set."""


@final
@dataclass
class DecoderSizes:
    """The part of a dense decoder's or of our mixture's config that decides what it costs.

    0 or '' stands for a field that the architecture does not have.
    """

    model_type: SizedType
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
    def of(cls, settings: Mapping[str, Any], *, model_type: SizedType) -> "DecoderSizes":
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


def read_sizes(folder: Path) -> DecoderSizes | None:
    """The sizes that a folder's `config.json` states; None where only transformers can tell.

    That is for other architectures, for fields that are left to defaults, for biases, windows,
    scaled positions and other activations, and for a file that is damaged, which transformers names
    better.
    """
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("model_type") not in get_args(DenseFamily):
        return None
    kind = cast("DenseFamily", found["model_type"])
    stated = {name: found.get(name) for name in STATED}
    if not all(isinstance(value, int) for value in stated.values()) or not stated["hidden_size"]:
        return None
    kinds = set(found.get("layer_types") or ())
    # A Mistral has a window where none is stated; Qwen states one that it may not use.
    window = found.get("sliding_window", kind == "mistral") and found.get("use_sliding_window", 1)
    if any(found.get(name) for name in BIASES) or kinds - {"full_attention"} or window:
        return None
    positions = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if not isinstance(positions, dict) or found.get("hidden_act", "silu") != "silu":
        return None
    if positions.get("rope_type", positions.get("type", "default")) != "default":
        return None
    width = found.get("head_dim")
    if width is None and kind != "qwen3":  # whose heads are 128 wide where nothing is stated
        width = found["hidden_size"] // found["num_attention_heads"]
    if not isinstance(width, int):
        return None
    return DecoderSizes.of(stated | {"head_dim": width}, model_type=kind)
