"""Answers sampled from a model, many at once, with their log-probabilities.

One generator draws a number for every row at every step, so an answer does not depend on which
other rows have ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import DataError, TrainingError
from limbeck.models.torch_session import TorchSession


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
    end_ids: Collection[int],
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
        num_rows = len(prompts) * num_samples
        session = TorchSession(model, num_slots=num_rows)
        answers = [_OpenAnswer() for _ in range(num_rows)]
        logits = session.admit(prompts, num_copies=num_samples).logits
        for step in range(max_new_tokens):
            if not bool(logits.isfinite().all()):
                raise TrainingError(
                    "the model's logits are not finite, so no answer can be drawn; lower "
                    "learning_rate or raise warmup_steps"
                )
            uniform = torch.rand(num_rows, generator=generator, dtype=torch.float64)
            drawn, logs = draw_tokens(
                logits[:, : vocab or None],
                uniform=uniform[list(session.slots)].to(logits.device),
                temperature=temperature,
                top_p=top_p,
            )
            tokens = dict(zip(session.slots, drawn.tolist(), strict=True))
            for slot, log in zip(session.slots, logs.tolist(), strict=True):
                answers[slot].append(tokens[slot], log, end_ids=end_ids)
            ended = [slot for slot in session.slots if answers[slot].ended]
            if len(ended) == len(tokens) or step == max_new_tokens - 1:
                break
            # Rows leave together, once they are half of all: evicting copies the cache. When they
            # leave decides how sums are rounded, so another rule would change training's numbers.
            if 2 * len(ended) >= len(tokens):
                session.evict(ended)
            logits = session.step([tokens[slot] for slot in session.slots])
        return [answer.freeze() for answer in answers]
    finally:
        model.train(training)


@dataclass
class _OpenAnswer:
    """An answer being drawn; a row that ended draws on until it is evicted."""

    tokens: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    ended: bool = False

    def append(self, token: int, log: float, *, end_ids: Collection[int]) -> None:
        if not self.ended:
            self.tokens.append(token)
            self.logs.append(log)
            self.ended = token in end_ids

    def freeze(self) -> GeneratedAnswer:
        return GeneratedAnswer(tuple(self.tokens), tuple(self.logs), self.ended)


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
