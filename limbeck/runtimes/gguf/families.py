"""How llama.cpp computes each family: what it reads of a file, what it always computes.

Left out: refusing what a family does not read (`limits`), and writing it (`metadata`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

GELU = "gelu_pytorch_tanh"
Scale = Literal["attention_softcap", "logit_softcap"]
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
    takes_output_bias: bool = False
    """Attention's last projection and the feed-forward may have biases."""
    optional: frozenset[Scale] = frozenset()
    """Read of a file that states them; without them there are none."""
    required: frozenset[Scale] = frozenset()
    """Always computed, so that a model without them is another one."""
    scaled_by_width: int = 0
    """With so many layers, attention is scaled by hidden size over heads, not by head width."""


_LLAMA = GgufFamily(
    "llama", reorders_rotary=True, takes_rotary_factors=True, takes_output_bias=True
)
_GEMMA = GgufFamily("gemma3", activation=GELU, takes_windows=True)
FAMILIES: Mapping[str, GgufFamily] = {
    "gemma3_text": replace(_GEMMA, optional=frozenset({"logit_softcap"}), scaled_by_width=62),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": GgufFamily("qwen2"),
    "qwen3": GgufFamily("qwen3"),
}
"""By `model_type`; each is held against transformers in the tests."""
