"""A forward pass that computes logits only where a loss needs them.

The language head is often the largest product of a small model; prompts and padding need none of
it.
"""

import math
from collections.abc import Sequence
from contextvars import ContextVar
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import TrainingError
from limbeck.models.attention_capture import Heads, capture_attention
from limbeck.models.batch import Batch
from limbeck.models.config import LARGE_VOCAB, PLAIN_HEADS, LogitsForm
from limbeck.models.moe.layers import Routing
from limbeck.models.vision.modeling import LimbeckVisionForCausalLM


class FactoredLogits(NamedTuple):
    """Logits as `hidden_states @ head.T`, not yet multiplied."""

    hidden_states: Float[Tensor, "kept hidden"]
    """After the final norm."""
    head: Float[Tensor, "vocab hidden"]


class Kept(NamedTuple):
    """A model's outputs at the kept positions."""

    logits: Float[Tensor, "kept vocab"]
    """Of no columns where `factored` is given in their place."""
    hidden: tuple[Float[Tensor, "kept hidden"], ...]
    """After the requested layers, in that order."""
    routing: tuple[Routing, ...]
    """Of every token of the batch; empty for a dense model."""
    images: Float[Tensor, "images hidden"] | None = None
    """Each image as the mean of its tokens; None for a batch without images."""
    heads: tuple[Heads, ...] = ()
    """Of the layers whose attention was requested, at all positions."""
    factored: FactoredLogits | None = None
    """In place of `logits`, where that was requested and the architecture allows it."""


def returns_factored_logits(model: PreTrainedModel, *, form: LogitsForm) -> bool:
    """Whether a model's logits are to be returned factored, and can be."""
    text = model.config.get_text_config()
    if form == "full" or (form == "auto" and text.vocab_size < LARGE_VOCAB):
        return False
    head = model.get_output_embeddings()
    # A head that is wrapped or quantised computes something else than its weight's product, and
    # one that is divided among processes is whole in its own forward only.
    return (
        text.model_type in PLAIN_HEADS
        and type(head) is nn.Linear
        and head.bias is None
        and not isinstance(head.weight, DTensor)
        and head.weight.device.type != "meta"
        and head.weight.numel() == head.out_features * head.in_features
    )


def check_packing(architecture: str) -> None:
    """Refuse packed rows where records in them could read each other.

    Raises:
        TrainingError: the architecture is not known to keep them apart.
    """
    if architecture not in PLAIN_HEADS:
        raise TrainingError(
            f"batching.packing: architecture {architecture!r} is not known to keep packed "
            f"records apart, as {sorted(PLAIN_HEADS)} do; set it to 'none'"
        )


# One for each thread: micro-batches may run side by side.
_kept_only: ContextVar[Bool[Tensor, "batch tokens"] | None]
_kept_only = ContextVar("kept_only", default=None)


def _pick_kept(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Before a head: of all positions those that are kept, as one row.

    What an architecture does to its logits afterwards (scaling, a soft cap) it does to each alone.
    """
    keep = _kept_only.get()
    if keep is None:
        return None
    _kept_only.set(None)  # a second forward's hook on the same head finds nothing left to do
    states, *rest = given
    return (_pick(states, keep.to(states.device)).unsqueeze(0), *rest)


class KeptForward(nn.Module):
    """Wraps a model, so that data-parallel wrappers wrap one module with one forward."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.is_plain = model.config.get_text_config().model_type in PLAIN_HEADS
        head = model.get_output_embeddings()
        if not self.is_plain and head is not None:
            head.register_forward_pre_hook(_pick_kept)

    def forward(
        self,
        batch: Batch,
        *,
        keep: Bool[Tensor, "batch tokens"] | None = None,
        layers: Sequence[int] = (),
        attention: Sequence[int] = (),
        form: LogitsForm = "full",
    ) -> Kept:
        """Outputs at the batch's kept positions, or at those of `keep`.

        `layers` are those whose hidden states are returned, counted from 1; the last is after the
        final norm. `attention` are layers whose queries, keys and values are returned, of a model
        for which `enable_attention_capture` was called. `form` requests factored logits.
        Right-padded rows need no mask under causality, and in packed ones no record attends to
        another. Images that the tokens hold no place for are only encoded.

        Raises:
            TrainingError: rows are packed, and records in them could not be kept apart.
        """
        keep = batch.kept if keep is None else keep
        given: dict[str, Tensor] = {"input_ids": batch.input_ids}
        image_states = None
        if batch.images is not None:
            model = self.model
            assert isinstance(model, LimbeckVisionForCausalLM)
            image_states = model.encode_images(batch.images.pixels)
            if (batch.input_ids == model.config.image_token_id).any():
                given = {"inputs_embeds": model.place_images(batch.input_ids, image_states)}
        architecture = self.model.config.get_text_config().model_type
        if batch.positions is not None:
            check_packing(architecture)
            if attention:
                raise TrainingError(
                    "batching.packing: matched attention or values would compare tokens of one "
                    "record with those of another; set it to 'none', or match `what: hidden`"
                )
            given["position_ids"] = batch.positions
        body = self.model.get_decoder() if self.is_plain else self.model
        token = _kept_only.set(None if self.is_plain else keep)
        try:
            with capture_attention([layer - 1 for layer in attention]) as captured:
                output = body(**given, use_cache=False, output_hidden_states=bool(layers))
            is_picked = _kept_only.get() is None
        finally:
            _kept_only.reset(token)
        factored, head = None, self.model.get_output_embeddings()
        if self.is_plain and returns_factored_logits(self.model, form=form):
            assert isinstance(head, nn.Linear)
            states = _pick(output.last_hidden_state, keep)
            factored = FactoredLogits(states, head.weight.to(keep.device))
            logits = states.new_empty(len(states), 0)
        elif self.is_plain:
            assert head is not None
            logits = head(_pick(output.last_hidden_state, keep)).to(keep.device)
        else:
            logits = output.logits
            logits = logits.squeeze(0).to(keep.device) if is_picked else _pick(logits, keep)
        hidden = tuple(_pick(output.hidden_states[layer], keep) for layer in layers)
        routing = getattr(output, "routing", None) or ()
        heads = tuple(captured[layer - 1] for layer in attention)
        images = None if image_states is None else image_states.mean(dim=1)
        return Kept(logits, hidden, routing, images, heads, factored)


def _pick(item: Tensor, keep: Bool[Tensor, "batch tokens"]) -> Float[Tensor, "kept width"]:
    """The kept positions; a model that is spread over devices answers on the last of them."""
    return item.to(keep.device)[keep]


@torch.no_grad()
def count_picks(
    routing: Sequence[Routing], *, tokens: Bool[Tensor, " all"]
) -> Int[Tensor, "layers experts"]:
    """How often each expert of each layer was picked, padding left out."""
    counts = [
        torch.bincount(layer.picked[tokens].reshape(-1), minlength=layer.logits.shape[1])
        for layer in routing
    ]
    return torch.stack(counts)


@torch.no_grad()
def measure_entropy(
    routing: Sequence[Routing], *, tokens: Bool[Tensor, " all"]
) -> Float[Tensor, " layers"]:
    """Summed over tokens, the entropy of each layer's gate as a share of that of an even gate."""
    sums = []
    for layer in routing:
        probabilities = layer.probabilities[tokens].double()
        entropy = -torch.xlogy(probabilities, probabilities).sum(dim=-1)
        sums.append(entropy.sum() / math.log(max(2, layer.logits.shape[1])))
    return torch.stack(sums)
