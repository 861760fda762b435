"""Decoding with a KV cache of a fixed size, so that a step is the same program every time.

On a GPU a small model's step is mostly the starting of kernels; `capture` turns the step into one
CUDA graph, which starts them all at once. On a CPU the same steps run uncaptured, and give the
tokens of `TorchSteps`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import StaticCache

from limbeck.contracts.answerer import Size
from limbeck.contracts.errors import DataError
from limbeck.runtimes.greedy import Steps
from limbeck.runtimes.transformers import TorchSteps

DecodeStep = Callable[..., Tensor]


def capture(step: DecodeStep) -> DecodeStep:
    """The step compiled, and on a GPU recorded as a CUDA graph at its first calls."""
    return torch.compile(step, mode="reduce-overhead", fullgraph=True)


def keep_step(step: DecodeStep) -> DecodeStep:
    """The step as it is."""
    return step


class StaticSteps(Steps):
    """A transformers model on a device, with room for so many tokens and one batch at a time."""

    def __init__(
        self,
        steps: TorchSteps,
        *,
        device: Literal["cpu", "cuda"],
        capacity_tokens: int,
        prepare: Callable[[DecodeStep], DecodeStep] = keep_step,
    ) -> None:
        self._steps = steps
        self._device = torch.device(device)
        self._model = steps.model
        cast(nn.Module, self._model).to(self._device)
        self.max_tokens = min(capacity_tokens, steps.max_tokens)
        self._step = prepare(self._run)
        # One cache for each number of rows, used again: a CUDA graph is bound to its memory.
        self._caches: dict[int, StaticCache] = {}

    @torch.inference_mode()
    def start(
        self, prompts: Sequence[Sequence[int]], images: Sequence[Path] = ()
    ) -> tuple[Float[np.ndarray, "batch vocab"], "_State"]:
        """Logits after each prompt, and the state that `advance` goes on from.

        The state of an earlier batch with as many rows is lost.
        """
        torch.set_num_threads(self._steps.num_threads())
        state = _State(prompts, capacity=self.max_tokens, device=self._device)
        cache = self._caches.get(len(prompts))
        if cache is None:
            cache = StaticCache(self._model.config, max_cache_len=self.max_tokens)
            self._caches[len(prompts)] = cache
        cache.reset()
        places = (state.mask.cumsum(dim=1) - 1).clamp_min(0)[:, : state.num_tokens]
        seen = {name: item.to(self._device) for name, item in self._steps.see(images).items()}
        return _read(self._run(state.ids, state.mask, places, cache, **seen)), state

    @torch.inference_mode()
    def advance(
        self, tokens: Int[np.ndarray, " batch"], state: "_State"
    ) -> Float[np.ndarray, "batch vocab"]:
        """Logits after one more token of each row; changes the state."""
        state.take(tokens)
        torch.compiler.cudagraph_mark_step_begin()
        logits = self._step(state.ids, state.mask, state.places, self._caches[len(tokens)])
        return _read(logits)

    def _run(
        self, ids: Tensor, mask: Tensor, places: Tensor, cache: StaticCache, **seen: Tensor
    ) -> Tensor:
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **seen,
        )
        return output.logits[:, -1].float()

    def compute(
        self, rows: Sequence[Sequence[int]], *, start: int, images: Sequence[Path] = ()
    ) -> list[Float[np.ndarray, "kept vocab"]]:
        """Logits at every position of each row from `start` on, without a cache."""
        return self._steps.compute(rows, start=start, images=images)

    def size(self) -> Size:
        """Counts and bytes of the loaded model."""
        return self._steps.size()

    def num_threads(self) -> int:
        """CPU threads in use."""
        return self._steps.num_threads()


class _State:
    """Prompts padded on the left, and which places of the cache hold a token of each row."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], *, capacity: int, device: torch.device
    ) -> None:
        self.capacity = capacity
        self.num_tokens = max(map(len, prompts))
        self._check_room()
        self.ids = torch.zeros(len(prompts), self.num_tokens, dtype=torch.long, device=device)
        self.mask = torch.zeros(len(prompts), capacity, dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            first = self.num_tokens - len(prompt)
            self.ids[row, first:] = torch.tensor(prompt)
            self.mask[row, first : self.num_tokens] = 1
        self.places = self.mask.sum(dim=1, keepdim=True) - 1

    def take(self, tokens: Int[np.ndarray, " batch"]) -> None:
        """One more token of each row."""
        self.num_tokens += 1
        self._check_room()
        self.ids = torch.from_numpy(tokens).unsqueeze(1).to(self.mask.device)
        self.mask[:, self.num_tokens - 1] = 1
        self.places = self.places + 1

    def _check_room(self) -> None:
        if self.num_tokens > self.capacity:
            raise DataError(
                f"{self.num_tokens} tokens: expected at most {self.capacity}; raise capacity_tokens"
            )


def _read(logits: Tensor) -> np.ndarray:
    return logits.cpu().numpy()
