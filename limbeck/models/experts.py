"""The mixture-of-experts layer: a gate that picks experts, and the pool that computes them.

Dropless: every token is computed by every expert it picks. Axis letters: `N` tokens, `K` picked
experts, `E` experts, `D` hidden, `H` expert width. Left out: losses and bias updates that keep the
experts evenly loaded (`limbeck.objectives.routing`).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

DECODE_ROWS = 16
"""Up to this many token-expert pairs, reading only the picked experts' weights is cheaper."""


class Routing(NamedTuple):
    """What the gate decided for each token."""

    logits: Float[Tensor, "tokens experts"]
    """Scores before the softmax, without the balance bias."""
    picked: Int[Tensor, "tokens picks"]
    weights: Float[Tensor, "tokens picks"]
    """Unbiased probabilities of the picked experts; they sum to one when renormalised."""


class Gate(nn.Module):
    """Linear router in float32: picks by probability plus bias, weighs by probability alone.

    The bias balances load without a gradient (Wang et al. 2024, arXiv:2408.15664).
    """

    def __init__(self, *, num_experts: int, hidden: int, picks: int, normalize: str) -> None:
        super().__init__()
        self.picks = picks
        self.normalize = normalize
        self.weight = nn.Parameter(torch.empty(num_experts, hidden))
        self.balance_bias: Tensor
        self.register_buffer("balance_bias", torch.zeros(num_experts))

    def forward(self, x_ND: Float[Tensor, "tokens hidden"]) -> Routing:
        """The routing of each token; float32 even under mixed precision."""
        with torch.autocast(x_ND.device.type, enabled=False):
            logits_NE = functional.linear(x_ND.float(), self.weight.float())
            probabilities_NE = logits_NE.softmax(dim=-1)
            biased_NE = probabilities_NE.detach() + self.balance_bias
            picked_NK = biased_NE.topk(self.picks, dim=-1).indices
            weights_NK = probabilities_NE.gather(1, picked_NK)
            # One pick always weighs one after renormalising, which would starve the gate of
            # gradients.
            if self.normalize == "picked" and self.picks > 1:
                weights_NK = weights_NK / weights_NK.sum(dim=-1, keepdim=True)
        return Routing(logits_NE, picked_NK, weights_NK)


class Experts(nn.Module):
    """Gated feed-forward experts, stacked; parameter names and layout are Qwen3-MoE's."""

    def __init__(self, *, num_experts: int, hidden: int, width: int, activation: str) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.activation = ACT2FN[activation]

    def forward(
        self, x_ND: Float[Tensor, "tokens hidden"], routing: Routing
    ) -> Float[Tensor, "tokens hidden"]:
        """Sum of each token's picked experts, weighted by the gate."""
        picked_NK = routing.picked
        if picked_NK.numel() <= DECODE_ROWS and not torch.is_grad_enabled():
            outputs_NKD = self._compute_few(x_ND, picked_NK)
        else:
            outputs_NKD = self._compute_grouped(x_ND, picked_NK)
        return (outputs_NKD * routing.weights.to(outputs_NKD.dtype).unsqueeze(-1)).sum(dim=1)

    def _compute_grouped(self, x_ND: Tensor, picked_NK: Tensor) -> Tensor:
        """Sort token-expert pairs by expert, and multiply each expert's rows in one call."""
        num_tokens, picks = picked_NK.shape
        flat = picked_NK.reshape(-1)
        order = flat.argsort(stable=True)
        offsets = torch.bincount(flat, minlength=self.num_experts).cumsum(0).to(torch.int32)
        dtype = torch.get_autocast_dtype(x_ND.device.type) if _autocasts(x_ND) else x_ND.dtype
        rows_SD = x_ND.to(dtype)[order // picks]
        hidden_S2H = functional.grouped_mm(
            rows_SD, self.gate_up_proj.to(dtype).transpose(1, 2), offs=offsets
        )
        gate_SH, up_SH = hidden_S2H.chunk(2, dim=-1)
        outputs_SD = functional.grouped_mm(
            self.activation(gate_SH) * up_SH, self.down_proj.to(dtype).transpose(1, 2), offs=offsets
        )
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel(), device=order.device)
        return outputs_SD[inverse].view(num_tokens, picks, -1)

    def _compute_few(self, x_ND: Tensor, picked_NK: Tensor) -> Tensor:
        gate_up = self.gate_up_proj[picked_NK].to(x_ND.dtype)
        down = self.down_proj[picked_NK].to(x_ND.dtype)
        gate, up = torch.einsum("nkhd,nd->nkh", gate_up, x_ND).chunk(2, dim=-1)
        return torch.einsum("nkdh,nkh->nkd", down, self.activation(gate) * up)


def _autocasts(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


class SparseFeedForward(nn.Module):
    """Gate and experts in the place of a feed-forward layer, fused by weighted sum."""

    def __init__(
        self, *, num_experts: int, hidden: int, width: int, picks: int,
        activation: str, normalize: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gate = Gate(num_experts=num_experts, hidden=hidden, picks=picks, normalize=normalize)
        self.experts = Experts(
            num_experts=num_experts, hidden=hidden, width=width, activation=activation
        )

    def forward(
        self, hidden: Float[Tensor, "batch tokens hidden"]
    ) -> tuple[Float[Tensor, "batch tokens hidden"], Routing]:
        """The fused outputs and how each token was routed."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        routing = self.gate(flat)
        return self.experts(flat, routing).view_as(hidden).to(hidden.dtype), routing
