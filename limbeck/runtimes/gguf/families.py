"""How llama.cpp computes each family: what it reads of a file, what it always computes.

Left out: refusing what a family does not read (`limits`), and writing it (`metadata`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

GELU = "gelu_pytorch_tanh"
Scale = Literal[
    "attention_scale",
    "attention_softcap",
    "embedding_scale",
    "logit_scale",
    "logit_softcap",
    "residual_scale",
]
"""A field of an architecture that some families read of a file, and the others do not have."""


@dataclass(frozen=True)
class GgufFamily:
    """What llama.cpp computes of a family."""

    architecture: str
    """llama.cpp's name."""
    activation: str = "silu"
    reorders_rotary: bool = False
    """Rotary pairs are neighbours, where transformers has them half a head apart."""
    takes_rotary_factors: bool = False
    """Each rotary pair may have a factor of its own, as in Llama 3."""
    takes_windows: bool = False
    """All layers but each n-th have a window, and rotary positions of their own."""
    always_has_windows: bool = False
    """They are computed where a file states none, too."""
    takes_partial_rotary: bool = False
    """A part of a head's channels may be rotated."""
    takes_output_bias: bool = False
    """Attention's last projection and the feed-forward may have biases."""
    takes_tied_head: bool = True
    """A file may leave the head out, where it is the embeddings."""
    takes_wide_heads: bool = True
    """All heads together may have another width than the hidden states."""
    takes_shared_heads: bool = True
    """Fewer heads of keys than of queries."""
    step_without_positions: int = 0
    """Each layer of so many has no positions; 0: all have."""
    experts: Literal["none", "weighted", "normalized"] = "none"
    """Whether all layers have experts, and whether the weights of a token's sum to one."""
    takes_shared_expert: bool = False
    optional: frozenset[Scale] = frozenset()
    """Read of a file that states them; without them there are none."""
    required: frozenset[Scale] = frozenset()
    """Always computed, so that a model without them is another one."""
    scaled_by_width: int = 0
    """With so many layers, attention is scaled by hidden size over heads, not by head width."""


_LLAMA = GgufFamily(
    "llama", reorders_rotary=True, takes_rotary_factors=True, takes_output_bias=True
)
_GRANITE_SCALES: frozenset[Scale] = frozenset(
    {"attention_scale", "embedding_scale", "logit_scale", "residual_scale"}
)
FAMILIES: Mapping[str, GgufFamily] = {
    "gemma2": GgufFamily(
        "gemma2",
        activation=GELU,
        takes_windows=True,
        always_has_windows=True,
        required=frozenset({"attention_softcap", "logit_softcap"}),
        scaled_by_width=46,
    ),
    "gemma3_text": GgufFamily(
        "gemma3",
        activation=GELU,
        takes_windows=True,
        optional=frozenset({"logit_softcap"}),
        scaled_by_width=62,
    ),
    "glm4": GgufFamily("glm4", takes_partial_rotary=True),
    "granite": replace(_LLAMA, architecture="granite", optional=_GRANITE_SCALES),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": replace(_LLAMA, experts="normalized"),
    "olmo2": GgufFamily("olmo2", takes_tied_head=False, takes_wide_heads=False),
    "olmoe": GgufFamily(
        "olmoe",
        takes_tied_head=False,
        takes_wide_heads=False,
        takes_shared_heads=False,
        experts="weighted",
    ),
    "phi3": GgufFamily("phi3", takes_partial_rotary=True, takes_wide_heads=False),
    "qwen2": GgufFamily("qwen2"),
    "qwen2_moe": GgufFamily("qwen2moe", experts="weighted", takes_shared_expert=True),
    "qwen3": GgufFamily("qwen3"),
    "qwen3_moe": GgufFamily("qwen3moe", experts="normalized"),
    "smollm3": replace(
        _LLAMA, architecture="smollm3", takes_rotary_factors=False, step_without_positions=4
    ),
}
"""By `model_type`; each is held against transformers in the tests."""
