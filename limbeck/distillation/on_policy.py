"""On-policy distillation: on some steps the teacher's divergence is of the student's own samples.

GKD (Agarwal et al. 2024, arXiv:2306.13649): with probability lambda a step's batch holds answers
sampled from the student, through which no gradient flows. Such a step is a function of the weights,
the seed and the step, so a killed run resumes with the same samples.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from transformers import PreTrainedModel

from limbeck.distillation.config import OnPolicy
from limbeck.env.progress import PLAIN_INTERVAL_SECONDS, print_line
from limbeck.env.seeds import mix_seeds
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.generation import GeneratedAnswer, sample

logger = logging.getLogger(__name__)
MIN_ENDED_RATIO = 0.5
"""Below this share of sampled answers that end, a warning is due."""


Rows = Int[np.ndarray, " rows"]
WrittenBatches = Callable[[int], list[Batch]]
"""The micro-batches of a step, with the answers that the corpus has."""
SplitByLength = Callable[..., list[list[int]]]
"""`split(rows, lengths=)`: the rows of each micro-batch, from the lengths of all."""


@runtime_checkable
class PromptSource(Protocol):
    """The records of each step, and their prompts."""

    ids: Rows
    """The selected records."""
    answer_starts: Rows
    """Tokens of each record's question, by record id."""

    @property
    def has_images(self) -> bool:
        """Whether a selected record has images."""
        ...

    def order(self, step: int) -> Rows:
        """The records of a step, by id."""
        ...

    def prompt(self, record_id: int) -> list[int]:
        """A record's prompt as tokens."""
        ...


class OnPolicyBatches:
    """The micro-batches of every step, whoever wrote their answers, and what is known of them."""

    def __init__(
        self,
        config: OnPolicy,
        *,
        model: PreTrainedModel,
        records: PromptSource,
        written: WrittenBatches,
        split: SplitByLength,
        max_tokens: int,
        vocab: int,
        end_ids: Collection[int],
        pad_id: int,
        seed: int,
    ) -> None:
        self.config = config
        self.model = model
        self.records = records
        self.written = written
        self.split = split
        self.has_room = records.answer_starts < max_tokens
        """Of each record; a question that was cut off leaves no place for an answer."""
        self.vocab = min(vocab, model.config.get_text_config().vocab_size)
        self.end_ids, self.pad_id = end_ids, pad_id
        self.seed = seed
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        """Of each on-policy step: number of answers, mean length, and the share that ended."""

    def is_on_policy(self, step: int) -> bool:
        """Whether the answers of this step are sampled from the student."""
        return np.random.default_rng(mix_seeds(self.seed, step)).random() < self.config.ratio

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step; the same however often a run is killed before it.

        Records whose question was cut off are left out of on-policy steps, and counted.
        """
        chosen = [row for row in self.records.order(step).tolist() if self.has_room[row]]
        if not self.is_on_policy(step) or not chosen:
            return self.written(step)
        questions = [self.records.prompt(record) for record in chosen]
        answers = self._generate(step, questions)
        rows = [
            np.asarray([*question, *answer.tokens])
            for question, answer in zip(questions, answers, strict=True)
        ]
        self.curve.append(
            {
                "step": float(step),
                "own_answers": float(len(answers)),
                "own_answer_tokens": float(np.mean([len(answer.tokens) for answer in answers])),
                "own_ended_ratio": float(np.mean([answer.ended for answer in answers])),
            }
        )
        lengths = np.asarray([len(row) for row in rows])
        found = []
        for places in self.split(np.arange(len(rows)), lengths=lengths):
            batch = pad_rows(
                [rows[place] for place in places],
                starts=[len(questions[place]) for place in places],
                pad=self.pad_id,
                record_ids=[chosen[place] for place in places],
            )
            found.append(dataclasses.replace(batch, answers_from="student"))
        return found

    def _generate(self, step: int, questions: Sequence[Sequence[int]]) -> list[GeneratedAnswer]:
        """One sampled answer to each question, in batches of similar length."""
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, step))
        order = np.argsort([len(question) for question in questions], kind="stable")
        found: dict[int, GeneratedAnswer] = {}
        started = printed = time.monotonic()
        for first in range(0, len(order), self.config.generation_batch_size):
            members = order[first : first + self.config.generation_batch_size].tolist()
            answers = sample(
                self.model,
                [questions[place] for place in members],
                num_samples=1,
                temperature=self.config.temperature,
                top_p=self.config.top_p,
                max_new_tokens=self.config.max_new_tokens,
                end_ids=self.end_ids,
                generator=generator,
                vocab=self.vocab,
            )
            found |= dict(zip(members, answers, strict=True))
            if time.monotonic() - printed >= PLAIN_INTERVAL_SECONDS:
                printed = time.monotonic()
                print_line(f"step {step}: {len(found)} of {len(order)} answers sampled")
        self.seconds += time.monotonic() - started
        return [found[place] for place in range(len(questions))]

    def add_generation_stats(self, history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """The training curve with length and ended share of the answers at on-policy steps."""
        known = {point["step"]: point for point in self.curve}
        return [point | known.get(point["step"], {}) for point in history]

    def generation_metrics(self) -> dict[str, int | float]:
        """Over all steps: how many were on-policy, the answers' lengths, and the speed."""
        if not self.curve:
            return {"on_policy_steps": 0}
        answers = sum(point["own_answers"] for point in self.curve)
        tokens = sum(point["own_answers"] * point["own_answer_tokens"] for point in self.curve)
        ended = sum(point["own_answers"] * point["own_ended_ratio"] for point in self.curve)
        return {
            "on_policy_steps": len(self.curve),
            "own_answer_tokens_mean": tokens / answers,
            "own_ended_ratio": ended / answers,
            "generated_tokens_per_second": tokens / max(self.seconds, 1e-9),
            "own_answers_without_room": int((~self.has_room[self.records.ids]).sum()),
        }

    def warn(self) -> list[str]:
        """Warnings about the sampled answers, also logged."""
        ended = self.generation_metrics().get("own_ended_ratio", 1.0)
        if ended >= MIN_ENDED_RATIO:
            return []
        sentence = (
            f"on policy: {ended:.0%} of the student's own answers ended within "
            f"{self.config.max_new_tokens} tokens: raise on_policy.max_new_tokens, or distil on "
            "written answers first"
        )
        logger.warning(sentence)
        return [sentence]

    def state_dict(self) -> dict[str, Any]:
        """The statistics so far, which a resumed run cannot recompute."""
        return {"curve": self.curve, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the statistics."""
        self.curve, self.seconds = list(state_dict["curve"]), state_dict["seconds"]
