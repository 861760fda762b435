"""From which confidence on a model answers, fitted on its drafts of held-out and foreign questions.

A draft's confidence is a logistic regression on two figures: the geometric mean of its tokens'
probabilities, and how much of its question the training questions hold. Either alone lets through
what the other sees: a small model is often sure of nonsense, and a familiar question may still have
an answer that it never learnt. Nothing here reads what only measures. But the share of foreign
questions to decline, the part below which a question is foreign and the number of unseen n-grams
were chosen with evaluated answers of the demo and the test bed in view
(docs/decisions/0022-saying-less.md): for these two, the report's figures are no test of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from limbeck.contracts.answer_policy import (
    UNKNOWN_ANSWERS,
    AnswerPolicy,
    Confidence,
    PolicyFile,
    bounded_log,
)
from limbeck.contracts.answerer import Answerer
from limbeck.contracts.config import Config
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, PromptLengthError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.fields import NonNegativeInt, PositiveInt
from limbeck.contracts.records import Question
from limbeck.env.progress import Advance, track
from limbeck.evaluation.answer_questions import make_batches
from limbeck.evaluation.foreign import Topic, read_foreign
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.evaluation.metrics import exact_match
from limbeck.evaluation.tasks import Response, ask, score_response

MIN_HELD_OUT = 30
"""Fewer validation questions tell nothing of the hundredth part that may be declined."""
MIN_RIGHT = 20
"""With fewer right answers, all drafts of validation questions stand for the domain."""
MAX_DECLINED_RATIO = 0.01
"""Of what the model's domain is taken to be: the threshold never lies above this quantile."""
DECLINED_FOREIGN_RATIO = 0.98
"""Of the foreign questions, which the threshold is to decline, and no more than need be."""
DECLINED_BY_SCORE_RATIO = 0.9
"""Of them, by the regression alone: where familiarity tells them all, drafts still count."""
UNFAMILIAR_RATIO = 0.4
"""A question of which the model knows less than this part of what it knows of nearly every
validation question is foreign, whatever the draft looks like."""
UNSEEN_NGRAMS = 16
"""Added to every question, as many as a question of one line has."""
BATCH_SIZE = 32


class CalibrationConfig(Config):
    """How a model learns from which confidence on it answers."""

    num_questions: NonNegativeInt = 200
    """Most validation questions to draft answers to; 0: the model is not calibrated."""
    max_new_tokens: PositiveInt = 48
    """Longest draft."""
    unknown_answers: tuple[str, ...] = UNKNOWN_ANSWERS
    """Answers that say that the model does not know: no threshold is needed to decline them."""
    home_topics: tuple[Topic, ...] = ()
    """Topics that belong to the domain, as `[law]`: foreign questions about them are left out."""


@dataclass(frozen=True)
class Drafts:
    """The two figures of each draft, and whether it is right."""

    figures: Float[np.ndarray, "drafts 2"]
    """Logarithm of the geometric mean of its tokens' probabilities; familiarity of its question."""
    is_right: Bool[np.ndarray, " drafts"]
    is_unknown: Bool[np.ndarray, " drafts"]
    """Whether it says that the model does not know, so that declining it changes nothing."""


def make_policy(answerer: Answerer, corpus: Corpus, *, config: CalibrationConfig) -> AnswerPolicy:
    """The policy of a model, from its corpus.

    A model whose corpus holds too little, or validation questions that are trained on, is not
    calibrated, and the policy says why: nothing that comes after training may lose it.
    """
    domain = corpus.domain()
    file = PolicyFile(
        disclaimer=domain.disclaimer, emergencies=domain.emergencies, safety=domain.safety
    )
    if not config.num_questions:
        return AnswerPolicy(file.replace(reason="calibration.num_questions is 0"))
    try:
        held_out = read_held_out(corpus, max_questions=config.num_questions)
    except DataError as error:
        return AnswerPolicy(file.replace(reason=str(error)))
    if len(held_out) < MIN_HELD_OUT:
        reason = f"{len(held_out)} validation questions, expected at least {MIN_HELD_OUT}"
        return AnswerPolicy(file.replace(reason=reason))
    familiarity = Familiarity.of(
        record.question for record in corpus.records("train") if record.question
    )
    foreign = read_foreign("calibration", without=config.home_topics)
    with track("calibrate", total=len(held_out) + len(foreign), unit="question") as advance:
        found = [
            _draft(answerer, questions, familiarity=familiarity, config=config, advance=advance)
            for questions in (held_out, foreign)
        ]
    confidence = fit(*found).replace(home_topics=config.home_topics)
    return AnswerPolicy(file.replace(confidence=confidence.model_dump()), familiarity)


def _draft(
    answerer: Answerer,
    questions: Sequence[Question],
    *,
    familiarity: Familiarity,
    config: CalibrationConfig,
    advance: Advance,
) -> Drafts:
    figures, is_right, is_unknown = [], [], []
    for batch in make_batches(questions, batch_size=BATCH_SIZE):
        for question, response in _answer(answerer, batch, config=config):
            log_prob = bounded_log(response.confidence_ratio)
            figures.append(
                (log_prob, familiarity.ratio(question.question, unseen_ngrams=UNSEEN_NGRAMS))
            )
            is_right.append(score_response(question, response).correct)
            is_unknown.append(exact_match(response.text, expected=config.unknown_answers))
        advance(len(batch))
    return Drafts(
        np.array(figures, dtype=float).reshape(-1, 2),
        np.array(is_right, dtype=bool),
        np.array(is_unknown, dtype=bool),
    )


def _answer(
    answerer: Answerer, batch: tuple[Question, ...], *, config: CalibrationConfig
) -> list[tuple[Question, Response]]:
    """The questions with their drafts; those that are too long for the model are left out."""
    try:
        responses = ask(answerer, batch, max_new_tokens=config.max_new_tokens)
    except PromptLengthError:
        if len(batch) == 1:
            return []
        return [pair for item in batch for pair in _answer(answerer, (item,), config=config)]
    return list(zip(batch, responses, strict=True))


def fit(held_out: Drafts, foreign: Drafts) -> Confidence:
    """The regression and its threshold.

    It declines 98 % of the foreign questions (90 % by the regression alone) and no more than that
    asks for, since a question of the domain in words of its own looks less familiar than a
    validation question does; and never more than a hundredth of what is to be answered. A draft
    that says that the model does not know is declined by itself.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (slow to import)

    num_right = int(held_out.is_right.sum())
    by_answer = num_right >= MIN_RIGHT
    is_wanted = held_out.is_right if by_answer else np.ones_like(held_out.is_right)
    figures = np.concatenate([held_out.figures, foreign.figures])
    wanted = np.concatenate([is_wanted, np.zeros(len(foreign.figures), dtype=bool)])
    mean, scale = figures.mean(axis=0), np.maximum(figures.std(axis=0), 1e-9)
    model = LogisticRegression(class_weight="balanced").fit((figures - mean) / scale, wanted)
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ mean)
    scores = figures @ weights + bias
    least = float(np.quantile(held_out.figures[:, 1], MAX_DECLINED_RATIO) * UNFAMILIAR_RATIO)
    is_foreign = figures[:, 1] < least
    is_unknown = np.concatenate([held_out.is_unknown, foreign.is_unknown])
    answered = wanted & ~is_unknown
    declined_anyway = is_foreign | is_unknown
    highest = np.quantile(
        scores[answered if answered.any() else wanted], MAX_DECLINED_RATIO, method="lower"
    )
    outside = slice(len(held_out.figures), None)
    lowest = max(
        np.quantile(values[outside], ratio, method="higher")
        for values, ratio in (
            (np.where(declined_anyway, -np.inf, scores), DECLINED_FOREIGN_RATIO),
            (scores, DECLINED_BY_SCORE_RATIO),
        )
    )
    threshold = float(min(np.nextafter(lowest, np.inf), highest))
    is_declined = declined_anyway | (scores < threshold)
    return Confidence(
        bias=bias,
        log_prob_weight=float(weights[0]),
        familiarity_weight=float(weights[1]),
        unseen_ngrams=UNSEEN_NGRAMS,
        min_confidence_ratio=1 / (1 + math.exp(-max(-500.0, threshold))),
        min_familiarity_ratio=least,
        basis="right answers" if by_answer else "questions",
        num_held_out=len(held_out.figures),
        num_right=num_right,
        num_foreign=len(foreign.figures),
        declined_right_ratio=float((is_declined & answered)[wanted].mean()),
        declined_foreign_ratio=float(is_declined[outside].mean()),
    )
