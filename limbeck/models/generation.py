"""Answers drawn at random from a model, many at once, with a KV cache and their log-probabilities.

Every draw hangs on one generator, row by row, so it is the same whatever rows have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from limbeck.contracts.errors import DataError, TrainingError


@dataclass(frozen=True)
class GeneratedAnswer:
    """One answer as tokens, the end included where the model ended it."""

    tokens: tuple[int, ...]
    logs: tuple[float, ...]
    """Log-probability of each token under the model at the temperature, nothing cut off."""
    ended: bool


def draw_tokens(
    logits: Float[Tensor, "rows vocab"],
    *,
    uniform: Float[Tensor, " rows"],
    temperature: float,
    top_p: float,
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """A token for each row by inverting the distribution function, and its log-probability.

    `top_p` leaves the fewest likeliest tokens that hold so much probability (Holtzman et al. 2020,
    arXiv:1904.09751); the log-probability is that of the whole distribution.
    """
    logs = (logits.float() / temperature).log_softmax(dim=-1)
    probabilities = logs.double().exp()
    if top_p < 1:
        ordered, places = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(1, places, ordered)
    sums = probabilities.cumsum(dim=-1)
    wanted = uniform.to(sums).unsqueeze(1) * sums[:, -1:]
    tokens = torch.searchsorted(sums, wanted, right=True).clamp(max=logits.shape[1] - 1)
    return tokens.squeeze(1), logs.gather(1, tokens).squeeze(1)


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    end_id: int,
    generator: torch.Generator,
    vocab: int = 0,
) -> list[GeneratedAnswer]:
    """So many answers to each prompt, prompt after prompt; the model is left as it was.

    `vocab` leaves only the first so many tokens to draw from; 0 leaves all.

    Raises:
        TrainingError: the model's logits are no longer finite numbers.
    """
    training = model.training
    model.eval()
    try:
        rows = _Rows(model, prompts, num_samples=num_samples, max_new_tokens=max_new_tokens)
        last = vocab or None
        for step in range(max_new_tokens):
            if not bool(rows.logits.isfinite().all()):
                raise TrainingError(
                    "the model's logits are not finite, so no answer can be drawn; lower "
                    "learning_rate or raise warmup_steps"
                )
            uniform = torch.rand(rows.num_rows, generator=generator, dtype=torch.float64)
            tokens, logs = draw_tokens(
                rows.logits[:, :last],
                uniform=uniform[rows.index].to(rows.logits.device),
                temperature=temperature,
                top_p=top_p,
            )
            if not rows.take(step, tokens, logs, ended=tokens == end_id):
                break
            if step < max_new_tokens - 1:
                rows.advance(tokens)
        return rows.collect(end_id)
    finally:
        model.train(training)


def check_room(
    model: PreTrainedModel, *, longest_tokens: int, max_tokens: int, max_new_tokens: int, field: str
) -> None:
    """Every prompt is whole and leaves room for an answer; `field` names the recipe's setting.

    Raises:
        DataError: one does not.
    """
    if longest_tokens >= max_tokens:
        raise DataError(
            f"a question fills batching.max_length {max_tokens}, so its answer cannot start: "
            "raise it"
        )
    room = model.config.get_text_config().max_position_embeddings
    if longest_tokens + max_new_tokens > room:
        raise DataError(
            f"a prompt of {longest_tokens} tokens and {field} {max_new_tokens} exceed the model's "
            f"{room}: lower {field}"
        )


class _Rows:
    """The answers being written: their tokens so far, and the cache of those still open."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        max_new_tokens: int,
    ) -> None:
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left: answers start side by side
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        self.model = model
        self.cache = DynamicCache(config=model.config)
        self.mask = mask.to(model.device)
        places = (self.mask.cumsum(dim=1) - 1).clamp_min(0)
        self.logits = self._compute(ids.to(model.device), places)
        if num_samples > 1:  # a prompt is read once, whatever the number of its answers
            self.cache.batch_repeat_interleave(num_samples)
            self.mask = self.mask.repeat_interleave(num_samples, dim=0)
            self.logits = self.logits.repeat_interleave(num_samples, dim=0)
        self.num_rows = len(prompts) * num_samples
        self.index = torch.arange(self.num_rows)
        self.open: Bool[Tensor, " rows"] = torch.ones(self.num_rows, dtype=torch.bool)
        self.tokens = torch.full((self.num_rows, max_new_tokens), -1)
        self.logs = torch.zeros(self.num_rows, max_new_tokens)

    def take(self, step: int, tokens: Tensor, logs: Tensor, *, ended: Tensor) -> bool:
        """Note the open rows' tokens; whether any row stays open."""
        writing = self.index[self.open]
        self.tokens[writing, step] = tokens.cpu()[self.open]
        self.logs[writing, step] = logs.cpu()[self.open]
        self.open = self.open & ~ended.cpu()
        return bool(self.open.any())

    def advance(self, tokens: Tensor) -> None:
        """Logits after one more token; rows that ended are dropped once they are half."""
        if 2 * int(self.open.sum()) <= len(self.open):
            kept = self.open.nonzero().squeeze(1)
            self.index, self.open = self.index[kept], self.open[kept]
            kept = kept.to(self.mask.device)
            self.cache.batch_select_indices(kept)
            self.mask, tokens = self.mask[kept], tokens[kept]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.logits = self._compute(tokens.unsqueeze(1), self.mask.sum(dim=1, keepdim=True) - 1)

    def _compute(self, ids: Tensor, places: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def collect(self, end_id: int) -> list[GeneratedAnswer]:
        """Every answer."""
        found = []
        for tokens, logs in zip(self.tokens.tolist(), self.logs.tolist(), strict=True):
            length = tokens.index(-1) if -1 in tokens else len(tokens)
            said = tuple(tokens[:length])
            found.append(GeneratedAnswer(said, tuple(logs[:length]), said[-1] == end_id))
        return found
