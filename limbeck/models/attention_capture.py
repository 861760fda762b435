"""Captures queries, keys and values of chosen layers, from any decoder.

With capture enabled a model still attends by `scaled_dot_product_attention`; inside
`capture_attention` the inputs of chosen layers are kept too, so that no family needs code of its
own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from limbeck.contracts.errors import CheckpointError

NAME = "limbeck_capturing"
MASKED_SCORE = -1e9
"""Score of a masked position: no weight after a softmax, and still finite."""


class Heads(NamedTuple):
    """What one layer's attention is computed from, after norms and rotation."""

    queries: Float[Tensor, "batch heads tokens width"]
    keys: Float[Tensor, "batch groups tokens width"]
    values: Float[Tensor, "batch groups tokens value_width"]
    mask: Tensor | None
    """What the model attended under; None is plain causal."""
    scaling: float


# One for each thread: micro-batches may run side by side.
_capture: ContextVar[tuple[frozenset[int], dict[int, Heads]] | None]
_capture = ContextVar("capture", default=None)


def _sdpa_and_capture(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; keeps the inputs of layers that are captured."""
    layers, captured = _capture.get() or (frozenset[int](), {})
    layer = getattr(module, "layer_idx", None)  # an image encoder's layers have none
    if layer in layers:
        assert layer is not None
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        captured[layer] = Heads(query, key, value, attention_mask, scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


AttentionInterface.register(NAME, _sdpa_and_capture)
AttentionMaskInterface.register(NAME, sdpa_mask)


def enable_attention_capture(model: PreTrainedModel) -> None:
    """Switch a model to attention that can be captured; what it computes stays the same.

    Raises:
        CheckpointError: its attention implementation cannot be replaced.
    """
    model.set_attn_implementation(NAME)
    if model.config.get_text_config()._attn_implementation != NAME:
        raise CheckpointError(
            f"{type(model).__name__}: its attention cannot be captured; match `what: hidden` only"
        )


@contextmanager
def capture_attention(layers: Sequence[int]) -> Iterator[dict[int, Heads]]:
    """The attention inputs of the layers, counted from 0, computed in this block and thread."""
    captured: dict[int, Heads] = {}
    token = _capture.set((frozenset(layers), captured) if layers else None)
    try:
        yield captured
    finally:
        _capture.reset(token)


def attention_logs(
    heads: Heads, *, keep: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "kept heads tokens"]:
    """Log attention probabilities of each kept query, computed again from queries and keys.

    Padding follows the text, so a kept query attends to none of it. float32.
    """
    shared = heads.queries.shape[1] // heads.keys.shape[1]
    keys = heads.keys.repeat_interleave(shared, dim=1)
    return _log_softmax(heads, heads.queries, keys, keep=keep, scaling=heads.scaling)


def relation_logs(
    heads: Heads, *, keep: Bool[Tensor, "batch tokens"], relation_heads: int
) -> Float[Tensor, "kept relation_heads tokens"]:
    """Log softmax(V V^T / sqrt(d)) of each kept token over the tokens it attends to.

    All heads' values side by side, divided anew into `relation_heads` (MiniLMv2, Wang et al. 2020,
    arXiv:2012.15828). float32.

    Raises:
        CheckpointError: they do not divide evenly.
    """
    values = heads.values.transpose(1, 2).flatten(2)
    if values.shape[2] % relation_heads:
        raise CheckpointError(
            f"values have {values.shape[2]} numbers a token, which do not divide into "
            f"{relation_heads} relation heads; give matching another `relation_heads`"
        )
    values = values.unflatten(2, (relation_heads, -1)).transpose(1, 2)
    return _log_softmax(heads, values, values, keep=keep, scaling=values.shape[-1] ** -0.5)


def _log_softmax(
    heads: Heads, rows: Tensor, columns: Tensor, *, keep: Tensor, scaling: float
) -> Float[Tensor, "kept heads tokens"]:
    num_tokens = rows.shape[2]
    with torch.autocast(rows.device.type, enabled=False):
        scores = rows.float() @ columns.float().transpose(2, 3) * scaling
    scores = scores.transpose(1, 2)[keep]
    visible = heads.mask
    if visible is None:
        visible = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=rows.device).tril()
        visible = visible.expand(len(keep), 1, -1, -1)
    elif visible.dtype != torch.bool:
        visible = visible == 0
    visible = visible.expand(len(keep), -1, -1, -1).transpose(1, 2)[keep]
    return scores.masked_fill(~visible, MASKED_SCORE).log_softmax(dim=-1)
