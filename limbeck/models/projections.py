"""Where the projections of a block lie: each in a linear layer of its own, or several in one.

A fused layer holds its projections one below another: `qkv_proj` (Phi-3) queries, keys and values,
`gate_up_proj` (Phi-3, GLM-4) gate and up. Left out: experts, whose matrices are stacked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
PARTS: Mapping[str, tuple[str, ...]] = {"self_attn": ATTENTION, "mlp": FEED_FORWARD}
"""Projections by their part of a block, in the order in which they run: the last of each writes to
the residual stream, the others read it."""
FUSED: Mapping[str, tuple[str, ...]] = {"qkv_proj": ATTENTION[:3], "gate_up_proj": FEED_FORWARD[:2]}
"""Linear layers that hold several projections, in the order of their rows."""


@dataclass(frozen=True)
class Section:
    """The output rows of a linear layer that are one projection."""

    linear: str
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """How many rows the projection has."""
        return self.stop - self.start


def count_shares(config: PreTrainedConfig) -> dict[str, int]:
    """How the rows of fused projections are divided, in heads: queries, keys, values; gate, up."""
    text = config.get_text_config()
    queries = getattr(text, "num_attention_heads", None) or 1  # none without attention
    keys = getattr(text, "num_key_value_heads", None) or queries
    return {"q_proj": queries, "k_proj": keys, "v_proj": keys, "gate_proj": 1, "up_proj": 1}


def name_linear(module: nn.Module, path: str) -> str:
    """The path of the linear layer that holds a projection: its own, or a fused one beside it."""
    modules = dict(module.named_modules())
    parent, dot, name = path.rpartition(".")
    fused = (f"{parent}{dot}{layer}" for layer, held in FUSED.items() if name in held)
    return path if path in modules else next((item for item in fused if item in modules), path)


def name_linears(module: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    """The linear layers that hold some projections, each once."""
    return tuple(dict.fromkeys(name_linear(module, path) for path in paths))


def find_section(block: nn.Module, name: str, *, shares: Mapping[str, int]) -> Section:
    """The rows of a projection; those of a fused layer are divided by `count_shares`."""
    linear = name_linear(block, name)
    num_rows = block.get_parameter(f"{linear}.weight").shape[0]
    held = FUSED.get(linear, (name,))
    total = sum(shares[item] for item in held)
    before = sum(shares[item] for item in held[: held.index(name)])
    return Section(linear, num_rows * before // total, num_rows * (before + shares[name]) // total)


def read_projections(
    block: nn.Module, linear: str, *, kind: str, shares: Mapping[str, int]
) -> Tensor | None:
    """What a linear layer of this name would hold if the block fused its projections as it does.

    Rows of a fused layer, or those of several layers one below another; None where the block has
    them not. `kind` is "weight" or "bias".
    """
    parameters = dict(block.named_parameters())
    parts = []
    for name in FUSED.get(linear, (linear,)):
        held = parameters.get(f"{name_linear(block, name)}.{kind}")
        if held is None or name not in shares:
            return None
        section = find_section(block, name, shares=shares)
        parts.append(held[section.start : section.stop])
    return torch.cat(parts)
