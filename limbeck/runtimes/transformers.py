"""Answering with a transformers checkpoint, in torch on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from limbeck.contracts.answerer import Answerer, Size
from limbeck.models.checkpoints import chat_template_of, load_model, load_tokenizer
from limbeck.models.vision.image_processing import read_pixels
from limbeck.models.vision.modeling import image_format
from limbeck.models.vocabulary import as_token_ids, end_token_id
from limbeck.runtimes.chat import Chat, TextCodec, no_template
from limbeck.runtimes.greedy import GreedyAnswerer, Steps
from limbeck.sizing.parameters import size_model

UNLIMITED_TOKENS = 1 << 30
NOTHING: dict[str, Tensor] = {}


def read(folder: Path, *, num_threads: int) -> Answerer:
    """The checkpoint in a folder, ready to answer.

    Raises:
        CheckpointError: it cannot be loaded, or says not how it is spoken to.
    """
    steps = open_steps(folder, num_threads=num_threads)
    return GreedyAnswerer(steps, chat=open_chat(folder, model=steps.model))


def open_steps(folder: Path, *, num_threads: int) -> "TorchSteps":
    """The checkpoint in a folder, without its tokenizer."""
    model = load_model(folder)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    weight_bytes = sum(path.stat().st_size for path in files)
    return TorchSteps(model, weight_bytes=weight_bytes, num_threads=num_threads)


@final
class TransformersCodec(TextCodec):
    """A transformers tokenizer, whatever its file format."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    @override
    def encode(self, text: str) -> list[int]:
        return cast(list[int], self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @override
    def decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return cast(str, text)


def open_chat(folder: Path, *, model: PreTrainedModel) -> Chat:
    """The chat of a checkpoint's own tokenizer.

    Raises:
        CheckpointError: the tokenizer is damaged, or has no chat template.
    """
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise no_template(folder)
    generation = model.generation_config
    ends = as_token_ids(None if generation is None else generation.eos_token_id)
    images = image_format(model.config)
    return Chat(
        chat_template_of(tokenizer),
        TransformersCodec(tokenizer),
        end_ids=ends or (end_token_id(tokenizer),),
        tokens_per_image=0 if images is None else images.num_tokens,
    )


@dataclass
class _State:
    cache: DynamicCache
    mask: Tensor | None
    """Nothing for prompts of one length: the mask would cost time and change nothing."""


class TorchSteps(Steps):
    """A transformers model with its KV cache; uneven prompts are padded on the left."""

    def __init__(self, model: PreTrainedModel, *, weight_bytes: int, num_threads: int) -> None:
        self.model = model
        text = model.config.get_text_config()
        self.max_tokens = getattr(text, "max_position_embeddings", UNLIMITED_TOKENS)
        self._image_format = image_format(model.config)
        self._weight_bytes = weight_bytes
        self._num_threads = num_threads

    @torch.inference_mode()
    def start(
        self, prompts: Sequence[Sequence[int]], images: Sequence[Path] = ()
    ) -> tuple[Float[np.ndarray, "batch vocab"], "_State"]:
        """Logits after each prompt, and the state that `advance` goes on from."""
        torch.set_num_threads(self._num_threads)
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        state = _State(DynamicCache(config=self.model.config), None if mask.all() else mask)
        return self._step(ids, state, self.see(images)), state

    @torch.inference_mode()
    def advance(
        self, tokens: Int[np.ndarray, " batch"], state: "_State"
    ) -> Float[np.ndarray, "batch vocab"]:
        """Logits after one more token of each row; changes the state."""
        if state.mask is not None:
            state.mask = torch.cat([state.mask, state.mask.new_ones(len(tokens), 1)], dim=1)
        return self._step(torch.from_numpy(tokens).unsqueeze(1), state)

    def see(self, images: Sequence[Path]) -> dict[str, Tensor]:
        """What the model is given besides tokens: nothing without images."""
        if not images:
            return {}
        assert self._image_format is not None
        pixels = {image: read_pixels(image, self._image_format) for image in dict.fromkeys(images)}
        return {
            "pixel_values": torch.from_numpy(np.stack([pixels[image] for image in images])).to(
                self.model.device
            )
        }

    def _step(self, ids: Tensor, state: "_State", seen: dict[str, Tensor] = NOTHING) -> np.ndarray:
        positions = {}
        if state.mask is not None:
            places = (state.mask.cumsum(dim=1) - 1).clamp_min(0)
            positions = {
                "attention_mask": state.mask,
                "position_ids": places[:, -ids.shape[1] :],
            }
        output = self.model(
            input_ids=ids,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
            **positions,
            **seen,
        )
        return output.logits[:, -1].float().numpy()

    @torch.inference_mode()
    def compute(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Logits at every position of each row from `start` on; causality hides the padding."""
        torch.set_num_threads(self._num_threads)
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        keep = ids.shape[1] - start
        output = self.model(
            input_ids=ids.to(self.model.device),
            use_cache=False,
            logits_to_keep=keep,
            **self.see(images),
        )
        logits = output.logits.float().cpu()
        return [logits[row, : len(tokens) - start].numpy() for row, tokens in enumerate(rows)]

    def size(self) -> Size:
        """Counts of the model as its config describes it, bytes of its weight files."""
        counted = size_model(self.model.config, context_tokens=1)
        return Size(counted.parameters, counted.active_parameters, self._weight_bytes)

    def num_threads(self) -> int:
        """CPU threads in use."""
        return self._num_threads
