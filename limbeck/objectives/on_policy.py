"""On-policy distillation: on some steps the student answers itself, and the teacher judges that.

GKD (Agarwal et al. 2024, arXiv:2306.13649): with probability lambda a step's batch holds answers
drawn from the student, through which no gradient flows. Such a step is a function of the weights,
the seed and the step, so a killed run goes on alike. Left out: the loss (`soft_target.py`), and
drawing itself (`limbeck.models.sampling`).
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field
from transformers import PreTrainedModel

from limbeck.contracts.config import Config
from limbeck.contracts.progress import PLAIN_INTERVAL_SECONDS
from limbeck.models.batch import Batch, pad_rows
from limbeck.models.sampling import Sampled, sample

logger = logging.getLogger(__name__)


class OnPolicy(Config):
    """Let the student answer on some steps, and the teacher say what it would have said there."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Chance that a step's answers are the student's own (lambda); 0 is off."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of drawing answers; the loss has its own."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens that hold so much probability."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Longest answer, in tokens; a longer one is judged up to there."""
    parallel_answers: Annotated[int, Field(gt=0)] = 64
    """Answers written side by side; more of them are faster and hold more memory."""


@dataclass(frozen=True)
class Question:
    """A record's tokens up to where its answer starts."""

    row: int
    """Which training record it is."""
    tokens: Sequence[int]


@dataclass(frozen=True)
class Lesson:
    """What the student learns from besides its own answers, step by step."""

    written: Callable[[int], list[Batch]]
    """The micro-batches of a step with the answers that the records hold."""
    questions: Callable[[int], list[Question]]
    """The questions of the same records."""
    part: Callable[[Int[np.ndarray, " rows"]], list[list[int]]]
    """From the lengths of a step's rows to the rows of each micro-batch."""


class OwnAnswers:
    """The micro-batches of every step, whoever wrote their answers, and what is known of them."""

    def __init__(
        self, config: OnPolicy, *, model: PreTrainedModel, lesson: Lesson, vocab: int, end_id: int,
        pad_id: int, seed: int,
    ) -> None:  # fmt: skip
        """Answers of a student as it trains; `vocab` are the tokens that its teacher knows."""
        self.config = config
        self.model = model
        self.lesson = lesson
        self.vocab = vocab
        self.end_id, self.pad_id = end_id, pad_id
        self.seed = seed
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        """Of each step on own answers: their number, mean length, and the share that ended."""

    def is_own(self, step: int) -> bool:
        """Whether the student answers on this step."""
        return np.random.default_rng(hash((self.seed, step)) % 2**63).random() < self.config.ratio

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step; the same however often a run is killed before it."""
        if not self.is_own(step):
            return self.lesson.written(step)
        questions = self.lesson.questions(step)
        answers = self._answer(step, questions)
        rows = [
            np.asarray([*question.tokens, *answer.tokens])
            for question, answer in zip(questions, answers, strict=True)
        ]
        self.curve.append(
            {
                "step": float(step), "own_answers": float(len(answers)),
                "own_answer_tokens": float(np.mean([len(answer.tokens) for answer in answers])),
                "own_ended_ratio": float(np.mean([answer.ended for answer in answers])),
            }
        )  # fmt: skip
        found = []
        for part in self.lesson.part(np.asarray([len(row) for row in rows])):
            batch = pad_rows(
                [rows[place] for place in part],
                starts=[len(questions[place].tokens) for place in part], pad=self.pad_id,
                places=[questions[place].row for place in part],
            )  # fmt: skip
            found.append(dataclasses.replace(batch, written="student"))
        return found

    def _answer(self, step: int, questions: Sequence[Question]) -> list[Sampled]:
        """One answer to each question, those of like length side by side."""
        generator = torch.Generator().manual_seed(hash((self.seed, step)) % 2**63)
        order = np.argsort([len(question.tokens) for question in questions], kind="stable")
        found: dict[int, Sampled] = {}
        started = told = time.monotonic()
        for first in range(0, len(order), self.config.parallel_answers):
            part = order[first : first + self.config.parallel_answers].tolist()
            answers = sample(
                self.model, [questions[place].tokens for place in part], num_samples=1,
                temperature=self.config.temperature, top_p=self.config.top_p,
                max_new_tokens=self.config.max_new_tokens, end_id=self.end_id,
                generator=generator, vocab=self.vocab,
            )  # fmt: skip
            found |= dict(zip(part, answers, strict=True))
            if time.monotonic() - told >= PLAIN_INTERVAL_SECONDS:
                told = time.monotonic()
                logger.info("step %d: %d of %d answers written", step, len(found), len(order))
        self.seconds += time.monotonic() - started
        return [found[place] for place in range(len(questions))]

    def mark(self, history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """A training curve whose points on own answers tell their length and how many ended."""
        known = {point["step"]: point for point in self.curve}
        return [point | known.get(point["step"], {}) for point in history]

    def measure(self) -> dict[str, int | float]:
        """Over all steps: how many were on own answers, these answers' lengths, and the speed."""
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
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run cannot find out again: what was measured."""
        return {"curve": self.curve, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.curve, self.seconds = list(state["curve"]), state["seconds"]
