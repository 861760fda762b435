"""Rollouts: each step's questions answered by the model in training, scored, and made to batches.

A step's answers are a function of the weights, the seed and the step, so a killed run goes on
alike; answers that serve several steps are saved with the training state.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.env.seeds import mix_seeds
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.forward import KeptForward
from limbeck.models.generation import GeneratedAnswer, sample
from limbeck.objectives.base import Experience
from limbeck.objectives.next_token import token_logs
from limbeck.reinforcement.config import Grpo
from limbeck.reinforcement.grpo import group_advantages

IDLE_STEPS = 20
"""After so many steps whose groups' rewards are all equal, a warning is due."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolloutPrompt:
    """A question as tokens, and the answer that the pack holds."""

    tokens: Sequence[int]
    expected: str


@dataclass(frozen=True)
class TokenizerIO:
    """How a model's tokens become text, and which of them end and pad an answer."""

    decode: Callable[[Sequence[int]], str]
    end_ids: Collection[int]
    pad_id: int


RewardFunction = Callable[[str, bool, str], dict[str, float]]
"""Rewards by name of a text, whether it ended, and the expected text; `reward` is their sum."""


class SampledAnswers(TypedDict):
    """The answers in use, one item each; empty before the first step."""

    rows: list[list[int]]
    """Prompt and answer as tokens."""
    starts: list[int]
    """Tokens of the prompt."""
    logs: list[list[float]]
    """Log-probability of each token of the answer when it was sampled."""
    reference_logs: list[list[float]]
    advantages: list[float]
    means: dict[str, float]
    """Over all answers, for the curve."""


def _mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {f"{name}_mean": sum(s[name] for s in scores) / len(scores) for name in scores[0]}


class Rollouts:
    """The batches of every step, and the experience of their tokens."""

    def __init__(
        self,
        config: Grpo,
        *,
        model: PreTrainedModel,
        reference: PreTrainedModel,
        prompts: Callable[[int], Sequence[RolloutPrompt]],
        reward_function: RewardFunction,
        tokenizer_io: TokenizerIO,
        num_parts: int,
        seed: int,
    ) -> None:
        self.config = config
        self.model = model
        self.reference = KeptForward(reference)
        self.prompts = prompts
        self.reward_function = reward_function
        self.tokenizer_io = tokenizer_io
        self.num_parts = num_parts
        self.seed = seed
        self.current_rollouts: SampledAnswers = {
            "rows": [],
            "starts": [],
            "logs": [],
            "reference_logs": [],
            "advantages": [],
            "means": {},
        }
        self.curve: list[dict[str, float]] = []
        """Means over the answers of each step: rewards, lengths, and groups of equal rewards."""

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step: fresh answers, or those of an earlier step again."""
        config = self.config
        if step % config.num_iterations == 0 or not self.current_rollouts["rows"]:
            self._answer(step)
        self.curve.append({"step": float(step), **self.current_rollouts["means"]})
        self._warn()
        lengths = [len(row) for row in self.current_rollouts["rows"]]
        order = np.argsort(lengths, kind="stable")
        parts = [part for part in np.array_split(order, self.num_parts) if len(part)]
        return [self._batch(part.tolist()) for part in parts]

    def _answer(self, step: int) -> None:
        """Sample and score the answers; the reference reads every answer once."""
        config = self.config
        prompts = self.prompts(step // config.num_iterations)
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, step))
        answers = sample(
            self.model,
            [prompt.tokens for prompt in prompts],
            num_samples=config.num_generations,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_completion_length,
            end_ids=self.tokenizer_io.end_ids,
            generator=generator,
        )
        repeated = [prompt for prompt in prompts for _ in range(config.num_generations)]
        scores = [self._score(*pair) for pair in zip(repeated, answers, strict=True)]
        rewards = torch.tensor([score["reward"] for score in scores]).view(
            -1, config.num_generations
        )
        rows = [[*pair[0].tokens, *pair[1].tokens] for pair in zip(repeated, answers, strict=True)]
        lengths = torch.tensor([float(len(answer.tokens)) for answer in answers])
        idle = (rewards.amax(dim=1) == rewards.amin(dim=1)).float()
        self.current_rollouts = {
            "rows": rows,
            "starts": [len(prompt.tokens) for prompt in repeated],
            "logs": [list(answer.logs) for answer in answers],
            "reference_logs": [],
            "advantages": group_advantages(rewards, scale=config.scale_rewards).flatten().tolist(),
            "means": {
                **_mean_scores(scores),
                "answer_tokens": float(lengths.mean()),
                "idle_groups_ratio": float(idle.mean()),
                "rollout_tokens": float(sum(map(len, rows))),
            },
        }
        self.current_rollouts["reference_logs"] = self._reference_log_probs()

    def _score(self, prompt: RolloutPrompt, answer: GeneratedAnswer) -> dict[str, float]:
        shown = answer.tokens[:-1] if answer.ended else answer.tokens
        return self.reward_function(self.tokenizer_io.decode(shown), answer.ended, prompt.expected)

    @torch.no_grad()
    def _reference_log_probs(self) -> list[list[float]]:
        order = sorted(
            range(len(self.current_rollouts["rows"])),
            key=lambda row: len(self.current_rollouts["rows"][row]),
        )
        found: dict[int, list[float]] = {}
        for part in np.array_split(np.asarray(order), self.num_parts):
            if not len(part):
                continue
            batch = self._batch(part.tolist()).to(self.model.device)
            logits = self.reference(batch).logits
            logs = token_logs(logits, batch.targets, temperature=self.config.temperature).cpu()
            pieces = logs.split(batch.kept.sum(dim=1).tolist())
            found |= {row: piece.tolist() for row, piece in zip(part, pieces, strict=True)}
        return [found[row] for row in range(len(found))]

    def _batch(self, indices: list[int]) -> Batch:
        return pad_rows(
            [np.asarray(self.current_rollouts["rows"][index]) for index in indices],
            starts=[self.current_rollouts["starts"][index] for index in indices],
            pad=self.tokenizer_io.pad_id,
            record_ids=indices,
        )

    def experience_of(self, batch: Batch) -> Experience:
        """The experience of the batch's kept tokens."""
        rows = batch.record_ids.tolist()
        answers, device = self.current_rollouts, batch.record_ids.device

        def join(logs: list[list[float]]) -> Tensor:
            return torch.tensor([value for row in rows for value in logs[row]], device=device)

        counts = torch.tensor([len(answers["logs"][row]) for row in rows])
        advantages = torch.tensor([answers["advantages"][row] for row in rows])
        return Experience(
            join(answers["logs"]),
            join(answers["reference_logs"]),
            advantages.repeat_interleave(counts).to(device),
        )

    def _warn(self) -> None:
        recent = [point["idle_groups_ratio"] for point in self.curve[-IDLE_STEPS:]]
        if len(self.curve) % IDLE_STEPS == 0 and min(recent) == 1.0:
            logger.warning(
                "all answers to a question had equal rewards for %d steps, so nothing is learnt: "
                "raise temperature or num_generations, or use questions that the model does not "
                "answer right yet",
                IDLE_STEPS,
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the answers in use, and the curve."""
        return {"held": self.current_rollouts, "curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the answers in use, and the curve."""
        self.current_rollouts, self.curve = state_dict["held"], list(state_dict["curve"])
