"""A session with slots on a transformers model and its growing KV cache.

Rows are padded on the left, so that they all grow at the same end. A joining row is aligned with
the others there, and columns that hold no row's tokens any more are cut off.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer
from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.models.session import Session
from limbeck.models.vision.configuration import image_format
from limbeck.models.vision.image_processing import read_pixels

STATES = ("qwen3_5_text", "qwen3_next")
"""Architectures whose layers keep another state than keys and values, and are held against a
computation without a cache in the tests."""


def check_decodable(model: PreTrainedModel, *, place: str | Path) -> None:
    """Accept a model whose rows can be decoded side by side.

    Raises:
        CheckpointError: its layers keep a state that padding or the loss of a row would spoil.
    """
    config = model.config.get_text_config()
    layers = set(config.to_dict().get("layer_types") or ())
    recurrent = model._is_stateful or "linear_attention" in layers
    attends = layers and layers <= {"attention", "full_attention", "sliding_attention"}
    if recurrent and not attends and config.model_type not in STATES:
        raise CheckpointError(
            f"{place}: a {config.model_type!r} keeps a recurrent state beside keys and values, "
            f"which is not known to answer alike alone and beside other rows (known: "
            f"{', '.join(STATES)}); name a model with attention in every layer"
        )


@final
class TorchSession(Session[Tensor]):
    """Decodes with a transformers model, where the model is; logits are float32.

    No gradients are computed. The model's own mode, training or not, is the caller's matter.
    """

    def __init__(self, model: PreTrainedModel, *, num_slots: int) -> None:
        super().__init__(num_slots=num_slots)
        self._model = model
        self._reset()

    def _reset(self) -> None:
        self._cache = DynamicCache(config=self._model.config)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._model.device)
        self._lengths: list[int] = []
        """Tokens of each row; the mask is as wide as the cache."""

    @override
    @torch.no_grad()
    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path],
        num_copies: int,
        owners: Sequence[str],
    ) -> Float[Tensor, "rows vocab"]:
        lengths = [len(prompt) for prompt in prompts]
        ids, mask = (item.to(self._model.device) for item in _pad_left(prompts))
        cache = DynamicCache(config=self._model.config)
        logits = self._forward(ids, mask, cache=cache, lengths=lengths, images=images)
        if num_copies > 1:
            copies = torch.arange(len(prompts), device=self._model.device)
            cache.reorder_cache(cast(torch.LongTensor, copies.repeat_interleave(num_copies)))
            mask = mask.repeat_interleave(num_copies, dim=0)
            logits = logits.repeat_interleave(num_copies, dim=0)
            lengths = [length for length in lengths for _ in range(num_copies)]
        if self._lengths:
            width = max(*self._lengths, *lengths)
            self._join(cache, width=width)
            mask = torch.cat([_fit(item, width=width, dim=1) for item in (self._mask, mask)])
        else:
            self._cache = cache
        self._mask = mask
        self._lengths += lengths
        return logits

    @override
    @torch.no_grad()
    def _decode(self, tokens: Sequence[int]) -> Float[Tensor, "rows vocab"]:
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._lengths = [length + 1 for length in self._lengths]
        ids = torch.tensor(tokens, device=self._model.device).unsqueeze(1)
        return self._forward(ids, self._mask, cache=self._cache, lengths=self._lengths)

    @override
    def _keep_rows(self, rows: Sequence[int]) -> None:
        if not rows:
            self._reset()
            return
        index = torch.tensor(rows, device=self._mask.device)
        # Of all methods that pick rows the one that every kind of layer has.
        self._cache.reorder_cache(cast(torch.LongTensor, index))
        self._mask = self._mask[index]
        self._lengths = [self._lengths[row] for row in rows]

    def _forward(
        self,
        ids: Int[Tensor, "rows tokens"],
        mask: Int[Tensor, "rows width"],
        *,
        cache: DynamicCache,
        lengths: Sequence[int],
        images: Sequence[Path] = (),
    ) -> Float[Tensor, "rows vocab"]:
        inputs: dict[str, Tensor] = {}
        if min(lengths) < mask.shape[1]:  # without padding a mask costs time and changes nothing
            inputs["attention_mask"] = mask
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        output = self._model(
            input_ids=ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **inputs,
            **image_inputs(self._model, images),
        )
        return output.logits[:, -1].float()

    def _join(self, cache: DynamicCache, *, width: int) -> None:
        """Append a cache's rows; the keys and values of all lie on the last `width` columns."""
        for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
            if type(ours) is LinearAttentionLayer:
                assert isinstance(theirs, LinearAttentionLayer)
                _join_states(ours, theirs)
                continue
            kept = width
            if type(ours) is DynamicSlidingWindowLayer:
                kept = min(width, ours.sliding_window - 1)
                ours.cumulative_length = width
            elif type(ours) is not DynamicLayer:
                raise CheckpointError(
                    f"a {self._model.config.model_type!r} model keeps more than keys and values, "
                    "so a row cannot join others; ask fewer questions at once"
                )
            assert isinstance(theirs, DynamicLayer)
            ours.keys, ours.values = (
                torch.cat([_fit(cast(Tensor, item), width=kept, dim=2) for item in pair])
                for pair in ((ours.keys, theirs.keys), (ours.values, theirs.values))
            )


def _join_states(ours: LinearAttentionLayer, theirs: LinearAttentionLayer) -> None:
    """Append the rows of another's recurrent states, which hold no columns for tokens."""
    for index in range(ours.number_of_states):
        pairs = ((ours.conv_states, theirs.conv_states),)
        if ours.is_recurrent_states_initialized[index]:
            pairs += ((ours.recurrent_states, theirs.recurrent_states),)
        for kept, added in pairs:
            kept[index] = torch.cat([cast(Tensor, kept[index]), cast(Tensor, added[index])])


def image_inputs(model: PreTrainedModel, images: Sequence[Path]) -> dict[str, Tensor]:
    """A model's arguments besides tokens: none without images.

    Raises:
        ImageError: an image cannot be read.
    """
    if not images:
        return {}
    read_as = image_format(model.config)
    assert read_as is not None, "prompts with images are rendered by models with an encoder only"
    pixels = {image: read_pixels(image, read_as) for image in dict.fromkeys(images)}
    stacked = np.stack([pixels[image] for image in images])
    return {"pixel_values": torch.from_numpy(stacked).to(model.device)}


def _pad_left(
    prompts: Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "rows width"], Int[Tensor, "rows width"]]:
    """Tokens and mask, so that answers start side by side."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _fit(item: Tensor, *, width: int, dim: int) -> Tensor:
    """So many last columns of a dimension, with zeros on the left where there are fewer."""
    return pad(item, [0, 0] * (item.ndim - 1 - dim) + [width - item.shape[dim], 0])
