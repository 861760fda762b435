"""The mixture-of-experts layer: a gate that picks experts, and the pool that computes them.

Dropless: every token is computed by every expert it picks. On a CPU a compiled operator does the
experts' work (`experts_op.py`); the PyTorch path here is its reference, and does the rest. Axis
letters: `N` tokens, `K` picked experts, `E` experts, `D` hidden, `H` expert width.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from limbeck.models.moe.fusion import weighted_sum
from limbeck.models.moe.kernels import experts_op

DECODE_ROWS = 16
"""Up to this many token-expert pairs, reading only the picked experts' weights is cheaper."""
GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What torch multiplies by groups."""


class Routing(NamedTuple):
    """What the gate decided for each token."""

    logits: Float[Tensor, "tokens experts"]
    """Scores before softmax or sigmoid, without the balance bias."""
    probabilities: Float[Tensor, "tokens experts"]
    """Unbiased scores of all experts, scaled to sum to one."""
    picked: Int[Tensor, "tokens picks"]
    weights: Float[Tensor, "tokens picks"]
    """Unbiased scores of the picked experts; they sum to `scale` when normalised."""


Scoring = Literal["softmax", "sigmoid"]
"""How the gate's logits become scores."""


@dataclass(frozen=True)
class GateRules:
    """How a gate scores, picks and weighs."""

    picks: int
    scoring: Scoring = "softmax"
    normalize: Literal["picked", "none"] = "picked"
    """Whether the weights of the picked experts are scaled to sum to one."""
    scale: float = 1.0
    """Factor of all weights."""
    num_groups: int = 1
    groups_per_token: int = 1
    """A token picks experts only from so many of the groups that the experts are divided into."""


def limit_groups(
    scores: Float[Tensor, "tokens experts"], *, num_groups: int, groups_per_token: int
) -> Float[Tensor, "tokens experts"]:
    """Scores with -inf outside each token's best groups.

    A group is as good as its two best experts together (DeepSeek-V3, sec. 2.1.2, arXiv:2412.19437).
    """
    grouped = scores.unflatten(1, (num_groups, -1))
    strength = grouped.topk(min(2, grouped.shape[2]), dim=-1).values.sum(dim=-1)
    best = strength.topk(groups_per_token, dim=-1).indices
    outside = torch.ones_like(strength, dtype=torch.bool).scatter(1, best, False)
    return grouped.masked_fill(outside.unsqueeze(-1), -torch.inf).flatten(1)


class Gate(nn.Module):
    """Linear router in float32: picks by score plus bias, weighs by score alone.

    The bias balances load without a gradient (Wang et al. 2024, arXiv:2408.15664).
    """

    def __init__(self, rules: GateRules, *, num_experts: int, hidden: int) -> None:
        super().__init__()
        self.rules = rules
        self.weight = nn.Parameter(torch.empty(num_experts, hidden))
        self.balance_bias: Tensor
        self.register_buffer("balance_bias", torch.zeros(num_experts))

    def forward(self, x_ND: Float[Tensor, "tokens hidden"]) -> Routing:
        """The routing of each token; float32 even under mixed precision."""
        rules = self.rules
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = functional.linear(x_ND.float(), self.weight.float())
            if rules.scoring == "softmax":
                scores_NE = probabilities_NE = logits_NE.softmax(dim=-1)
            else:
                scores_NE = logits_NE.sigmoid()
                probabilities_NE = scores_NE / scores_NE.sum(dim=-1, keepdim=True)
            biased_NE = scores_NE.detach() + self.balance_bias
            if rules.num_groups > 1:
                biased_NE = limit_groups(
                    biased_NE, num_groups=rules.num_groups, groups_per_token=rules.groups_per_token
                )
            picked_NK = biased_NE.topk(rules.picks, dim=-1).indices
            weights_NK = scores_NE.gather(1, picked_NK)
            # One pick always weighs one after renormalising, which would starve the gate of
            # gradients.
            if rules.normalize == "picked" and rules.picks > 1:
                weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
        return Routing(logits_NE, probabilities_NE, picked_NK, weights_NK * rules.scale)


class Experts(nn.Module):
    """Gated feed-forward experts, stacked; parameter names and layout are Qwen3-MoE's."""

    def __init__(self, *, num_experts: int, hidden: int, width: int, activation: str) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.activation = ACT2FN[activation]
        self.has_operator = activation == "silu"

    def forward(
        self,
        x_ND: Float[Tensor, "tokens hidden"],
        picked_NK: Int[Tensor, "tokens picks"],
        weights_NK: Float[Tensor, "tokens picks"] | None = None,
    ) -> Float[Tensor, "tokens picks hidden"] | Float[Tensor, "tokens hidden"]:
        """The outputs of each token's picked experts; with weights, their weighted sum."""
        device = x_ND.device.type
        if torch.is_autocast_enabled(device):
            x_ND = x_ND.to(torch.get_autocast_dtype(device))
        few = picked_NK.numel() <= DECODE_ROWS and not torch.is_grad_enabled()
        # Weights of another type are cast whole, unless only a few are read.
        casts = self.gate_up_proj.dtype != x_ND.dtype
        if self.has_operator and not (few and casts):
            gate_up, down = self.gate_up_proj.to(x_ND.dtype), self.down_proj.to(x_ND.dtype)
            if experts_op.fits(x_ND, gate_up=gate_up):
                return experts_op.compute_experts(
                    x_ND, picked_NK, weights_NK, gate_up=gate_up, down=down
                )
        compute = self._compute_few if few else self._compute_grouped
        outputs = compute(x_ND, picked_NK)
        return outputs if weights_NK is None else weighted_sum(outputs, weights_NK)

    def _compute_grouped(self, x_ND: Tensor, picked_NK: Tensor) -> Tensor:
        """Sort token-expert pairs by expert, and multiply each expert's rows in one call."""
        num_tokens, picks = picked_NK.shape
        flat = picked_NK.reshape(-1)
        order = flat.argsort(stable=True)
        # Not `bincount`, which waits for a GPU and so cannot be part of a CUDA graph.
        counts = flat.new_zeros(self.num_experts).scatter_add_(0, flat, torch.ones_like(flat))
        rows_SD = x_ND[order // picks]
        hidden_S2H = multiply_groups(rows_SD, self.gate_up_proj, counts=counts)
        gate_SH, up_SH = hidden_S2H.chunk(2, dim=-1)
        outputs_SD = multiply_groups(
            self.activation(gate_SH) * up_SH, self.down_proj, counts=counts
        )
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel(), device=order.device)
        return outputs_SD[inverse].view(num_tokens, picks, -1)

    def _compute_few(self, x_ND: Tensor, picked_NK: Tensor) -> Tensor:
        gate_up = self.gate_up_proj[picked_NK].to(x_ND.dtype)
        down = self.down_proj[picked_NK].to(x_ND.dtype)
        gate, up = torch.einsum("nkhd,nd->nkh", gate_up, x_ND).chunk(2, dim=-1)
        return torch.einsum("nkdh,nkh->nkd", down, self.activation(gate) * up)


def multiply_groups(
    rows: Float[Tensor, "rows inputs"],
    weights: Float[Tensor, "groups outputs inputs"],
    *,
    counts: Int[Tensor, " groups"],
) -> Float[Tensor, "rows outputs"]:
    """Each group's rows times its weights, transposed; the groups' rows follow each other.

    On a GPU torch has a fast kernel for bfloat16, and loops over the groups for the other types.
    """
    weights = weights.to(rows.dtype)
    if rows.dtype in GROUPED_DTYPES:
        offsets = counts.cumsum(0).to(torch.int32)
        return functional.grouped_mm(rows, weights.transpose(1, 2), offs=offsets)
    # `unbind` once: an index for each group would make a full-size gradient for each.
    parts = zip(rows.split(counts.tolist()), weights.unbind(0), strict=True)
    return torch.cat([part @ weight.T for part, weight in parts])


class SparseFeedForward(nn.Module):
    """Gate, experts, their fusion, and perhaps a shared expert that every token passes."""

    def __init__(
        self,
        rules: GateRules,
        *,
        num_experts: int,
        hidden: int,
        width: int,
        activation: str,
        fusion: nn.Module | None = None,
        shared_expert: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gate = Gate(rules, num_experts=num_experts, hidden=hidden)
        self.experts = Experts(
            num_experts=num_experts, hidden=hidden, width=width, activation=activation
        )
        self.fusion = fusion
        self.shared_expert = shared_expert

    def forward(
        self, hidden: Float[Tensor, "batch tokens hidden"]
    ) -> tuple[Float[Tensor, "batch tokens hidden"], Routing]:
        """The fused outputs and how each token was routed."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        routing = self.gate(flat)
        if self.fusion is None:
            fused = self.experts(flat, routing.picked, routing.weights)
        else:
            outputs = self.experts(flat, routing.picked)
            fused = self.fusion(flat, outputs=outputs, weights=routing.weights)
        if self.shared_expert is not None:
            fused = fused + self.shared_expert(flat)
        return fused.view_as(hidden).to(hidden.dtype), routing
