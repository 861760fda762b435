"""Settings of the choice: by chance, spread over questions, or where a cheap model is unsure."""

import abc
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeInt, PositiveInt
from limbeck.contracts.records import Record

MeasureMargins = Callable[[], Float[np.ndarray, " questions"]]
"""How sure a cheap model is of each question; computed only where it is called."""


class QuestionChoice(Config, abc.ABC):
    """Base of every choice of questions."""

    needs_margins: ClassVar[bool] = False
    """Whether it needs to know how sure a cheap model is."""

    is_limited: ClassVar[bool] = True
    """Whether some questions may stay without an answer."""

    kind: str
    """The name of the choice, as in the registry."""

    @abc.abstractmethod
    def choose(self, questions: Sequence[Record], *, measure_margins: MeasureMargins) -> list[int]:
        """The places of the questions that are asked, in their order.

        Raises:
            DataError: they cannot be chosen so.
        """


class All(QuestionChoice):
    """Ask every question."""

    is_limited: ClassVar[bool] = False

    kind: Literal["all"]

    @override
    def choose(self, questions: Sequence[Record], *, measure_margins: MeasureMargins) -> list[int]:
        return list(range(len(questions)))


class RandomQuestions(QuestionChoice):
    """Draw questions by a hash of their texts; a larger limit adds to the same ones."""

    kind: Literal["random"]
    max_questions: PositiveInt
    """Most questions that are asked."""
    seed: NonNegativeInt = 0

    @override
    def choose(self, questions: Sequence[Record], *, measure_margins: MeasureMargins) -> list[int]:
        from limbeck.distillation.question_choice.selection import draw_random

        return draw_random(questions, max_questions=self.max_questions, seed=self.seed)


class Diverse(QuestionChoice):
    """Group questions by their character n-grams (k-means), and ask the middle one of each."""

    kind: Literal["diverse"]
    max_questions: PositiveInt
    """Most questions that are asked."""
    seed: NonNegativeInt = 0

    @override
    def choose(self, questions: Sequence[Record], *, measure_margins: MeasureMargins) -> list[int]:
        from limbeck.distillation.question_choice.selection import choose_diverse

        return choose_diverse(questions, max_questions=self.max_questions, seed=self.seed)


class Uncertain(QuestionChoice):
    """Ask where a cheap model is least sure: a linear one of the labelled records, or a `student`.

    Of the least sure questions one of each group of similar ones is asked, as by `diverse`.
    """

    needs_margins: ClassVar[bool] = True

    kind: Literal["uncertain"]
    max_questions: PositiveInt
    """Most questions that are asked."""
    seed: NonNegativeInt = 0
    candidates_per_question: PositiveInt = 3
    """How many of the least sure questions there are to choose from, for each that is asked; 1
    takes the least sure ones, however similar."""

    @override
    def choose(self, questions: Sequence[Record], *, measure_margins: MeasureMargins) -> list[int]:
        from limbeck.distillation.question_choice.selection import choose_diverse

        if len(questions) <= self.max_questions:
            return list(range(len(questions)))
        order = np.argsort(measure_margins(), kind="stable").tolist()
        candidates = sorted(order[: self.candidates_per_question * self.max_questions])
        chosen = choose_diverse(
            [questions[place] for place in candidates],
            max_questions=self.max_questions,
            seed=self.seed,
        )
        return [candidates[place] for place in chosen]
