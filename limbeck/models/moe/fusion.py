"""How the outputs of a token's experts become one output: three forms, never across tokens.

The nearest published form is AdapterFusion (Pfeiffer et al. 2021, arXiv:2005.00247), which attends
over adapters. Here the gate's weights bias the scores, so the gate always has a gradient. Axis
letters: `N` tokens, `K` picked experts, `D` hidden, `H` heads, `R` channels of a head's scores.
"""

import math
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import FusionKind


def weighted_sum(
    outputs_NKD: Float[Tensor, "tokens picks hidden"], weights_NK: Float[Tensor, "tokens picks"]
) -> Float[Tensor, "tokens hidden"]:
    """Each token's outputs, weighted by the gate and added."""
    return (outputs_NKD * weights_NK.to(outputs_NKD.dtype).unsqueeze(-1)).sum(dim=1)


def attend_to_experts(
    *,
    queries: Float[Tensor, "tokens heads rank"],
    keys: Float[Tensor, "tokens picks heads rank"],
    values: Float[Tensor, "tokens picks hidden"],
    weights: Float[Tensor, "tokens picks"],
) -> Float[Tensor, "tokens hidden"]:
    """Each head mixes its own channels of the values: softmax_k(q.k / sqrt(R) + log w_k) sum(w).

    With zero queries this is the weighted sum exactly, for softmax(log w) is w / sum(w). Scores and
    softmax are float32.
    """
    num_heads, rank = queries.shape[1:]
    smallest = torch.finfo(torch.float32).tiny
    scores_NHK = torch.einsum("nhr,nkhr->nhk", queries.float(), keys.float()) / math.sqrt(rank)
    scores_NHK = scores_NHK + weights.float().clamp_min(smallest).log().unsqueeze(1)
    shares_NKH1 = scores_NHK.softmax(dim=-1).transpose(1, 2).unsqueeze(-1)
    shares_NKH1 = shares_NKH1 * weights.float().sum(dim=-1)[:, None, None, None]
    mixed = values.unflatten(-1, (num_heads, -1)) * shares_NKH1.to(values.dtype)
    return mixed.sum(dim=1).flatten(1)


class AttentionFusion(nn.Module):
    """Low-rank heads score the experts' outputs; values are the outputs themselves.

    Queries start at zero, so a fresh model computes the weighted sum. At D hidden channels and K
    picks it adds (K + 1) H R D multiplications a token to the experts' 3 K D W.
    """

    def __init__(self, *, hidden: int, num_heads: int, rank: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(num_heads * rank, hidden))
        self.key = nn.Parameter(torch.empty(num_heads * rank, hidden))
        nn.init.normal_(self.key, std=hidden**-0.5)

    def forward(
        self,
        x: Float[Tensor, "tokens hidden"],
        *,
        outputs: Float[Tensor, "tokens picks hidden"],
        weights: Float[Tensor, "tokens picks"],
    ) -> Float[Tensor, "tokens hidden"]:
        """The fused output of each token."""
        return attend_to_experts(
            queries=functional.linear(x, self.query).unflatten(-1, (self.num_heads, -1)),
            keys=functional.linear(outputs, self.key).unflatten(-1, (self.num_heads, -1)),
            values=outputs,
            weights=weights,
        )


class FullAttentionFusion(nn.Module):
    """Multi-head attention to the letter: projections of queries, keys, values and output.

    (2 K + 2) D D multiplications a token, about as many as two experts of width D take.
    """

    def __init__(self, *, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(hidden, hidden, bias=False) for _ in range(4)
        )

    def forward(
        self,
        x: Float[Tensor, "tokens hidden"],
        *,
        outputs: Float[Tensor, "tokens picks hidden"],
        weights: Float[Tensor, "tokens picks"],
    ) -> Float[Tensor, "tokens hidden"]:
        """The fused output of each token."""
        fused = attend_to_experts(
            queries=self.query(x).unflatten(-1, (self.num_heads, -1)),
            keys=self.key(outputs).unflatten(-1, (self.num_heads, -1)),
            values=self.value(outputs),
            weights=weights,
        )
        return self.output(fused)


def build_fusion(
    kind: str, *, hidden: int, num_heads: int, rank: int
) -> AttentionFusion | FullAttentionFusion | None:
    """The parameters of a form of fusion; the weighted sum has none."""
    if kind == "attention":
        return AttentionFusion(hidden=hidden, num_heads=num_heads, rank=rank)
    if kind == "full_attention":
        return FullAttentionFusion(hidden=hidden, num_heads=num_heads)
    if kind == "weighted_sum":
        return None
    raise CheckpointError(f"fusion {kind!r}: expected one of {', '.join(get_args(FusionKind))}")
