"""From which confidence on a model answers, fitted on its drafts of held-out and foreign questions.

A draft's confidence is a logistic regression on two figures: the geometric mean of its tokens'
probabilities, and how much of its question the training questions hold. Either alone lets through
what the other sees: a small model is often sure of nonsense, and a familiar question may still have
an answer that it never learnt. Nothing here reads what only measures. But the share of foreign
questions that the regression alone is to decline, the part below which a question is foreign and
the number of unseen n-grams were chosen with evaluated answers of the demo and the test bed in view
(docs/decisions/0022-saying-less.md): for these two, the report's figures are no test of them.
"""

import logging
import math
from collections.abc import Callable, Sequence
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
from limbeck.contracts.errors import DataError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.fields import NonNegativeInt, PositiveInt
from limbeck.contracts.records import Question
from limbeck.env.progress import Advance, track
from limbeck.evaluation.answer_questions import make_batches
from limbeck.evaluation.foreign import Topic, read_foreign
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.evaluation.metrics import exact_match
from limbeck.evaluation.tasks import Response, ask, score_response
from limbeck.evaluation.tolerance_limits import most_beyond, upper_share

logger = logging.getLogger(__name__)
MIN_HELD_OUT = 30
"""Fewer validation questions tell nothing of the share that may be declined."""
MIN_RIGHT = 20
"""With fewer right answers, all drafts of validation questions stand for the domain."""
BLOCK_QUESTIONS = 200
"""Validation questions that are drafted before it is asked whether that is enough."""
MAX_DECLINED_RATIO = 0.03
"""Of what the model's domain is taken to be, what the threshold may decline."""
MIN_DECLINED_RATIO = 0.95
"""Of foreign questions, what the threshold is to decline, and no more than need be."""
FAMILIAR_QUANTILE = 0.01
"""Of the validation questions' familiarity, which stands for nearly every one of them."""
DECLINED_BY_SCORE_RATIO = 0.85
"""Of them, by the regression alone: where familiarity separates them all, drafts still count."""
UNFAMILIAR_RATIO = 0.4
"""A question of which the model knows less than this part of what it knows of nearly every
validation question is foreign, whatever the draft is."""
UNSEEN_NGRAMS = 16
"""Added to every question, as many as a question of one line has."""
BATCH_SIZE = 32


class CalibrationConfig(Config):
    """How a model learns from which confidence on it answers."""

    num_questions: NonNegativeInt = 2000
    """Most validation questions to draft answers to; 0: the model is not calibrated."""
    num_right: PositiveInt = 400
    """Right drafts that are enough. Where fewer than 20 of 200 drafts are right, none is waited
    for."""
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

    def extend(self, more: "Drafts") -> "Drafts":
        """These drafts and more."""
        return Drafts(
            np.concatenate([self.figures, more.figures]),
            np.concatenate([self.is_right, more.is_right]),
            np.concatenate([self.is_unknown, more.is_unknown]),
        )


def make_policy(answerer: Answerer, corpus: Corpus, *, config: CalibrationConfig) -> AnswerPolicy:
    """The policy of a model, from its corpus.

    A model whose corpus holds too little, or validation questions that are trained on, is not
    calibrated, and a warning and the policy say why: nothing that comes after training may lose it.
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
        return _without_calibration(file, str(error))
    if len(held_out) < MIN_HELD_OUT:
        return _without_calibration(
            file, f"{len(held_out)} validation questions, expected at least {MIN_HELD_OUT}"
        )
    familiarity = Familiarity.of(
        record.question for record in corpus.records("train") if record.question
    )
    foreign = read_foreign("calibration", without=config.home_topics)
    with track("calibrate", total=len(held_out) + len(foreign), unit="question") as advance:

        def draft(questions: Sequence[Question]) -> Drafts:
            return _draft(
                answerer, questions, familiarity=familiarity, config=config, advance=advance
            )

        outside = draft(foreign)
        inside = _draft_until_enough(held_out, draft=draft, num_right=config.num_right)
    confidence = fit(inside, outside).replace(home_topics=config.home_topics)
    return AnswerPolicy(file.replace(confidence=confidence.model_dump()), familiarity)


def _without_calibration(file: PolicyFile, reason: str) -> AnswerPolicy:
    logger.warning("not calibrated, so it will decline nothing: %s", reason)
    return AnswerPolicy(file.replace(reason=reason))


def _draft_until_enough(
    questions: Sequence[Question], *, draft: Callable[[Sequence[Question]], Drafts], num_right: int
) -> Drafts:
    """The drafts of the first blocks, each of questions of all forms and lengths.

    No further block is drafted once enough are right, or where hardly any can be judged right.
    """
    num_blocks = -(-len(questions) // BLOCK_QUESTIONS)
    found = draft(questions[::num_blocks])
    for block in range(1, num_blocks):
        if not MIN_RIGHT <= found.is_right.sum() < num_right:
            break
        found = found.extend(draft(questions[block::num_blocks]))
    return found


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
    responses = ask(answerer, batch, max_new_tokens=config.max_new_tokens)
    pairs = zip(batch, responses, strict=True)
    return [(question, response) for question, response in pairs if not response.is_too_long]


def fit(held_out: Drafts, foreign: Drafts) -> Confidence:
    """The regression and its threshold.

    Two limits bound the threshold, each one that holds for all drafts at a certainty of 95 %, as
    far as these are a sample of them. It declines 95 % of foreign questions (85 % of these by the
    regression alone) and no more than that asks for, since a question of the domain in words of
    its own looks less familiar than a validation question does. It never declines more than 3 % of
    what is to be answered; of too few drafts to know, it declines none. A draft
    that says that the model does not know is declined by itself.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (slow to import)

    num_right = int(held_out.is_right.sum())
    by_answer = num_right >= MIN_RIGHT
    is_wanted = held_out.is_right if by_answer else np.ones_like(held_out.is_right)
    drafts = held_out.extend(foreign)
    figures = drafts.figures
    wanted = np.concatenate([is_wanted, np.zeros(len(foreign.figures), dtype=bool)])
    mean, scale = figures.mean(axis=0), np.maximum(figures.std(axis=0), 1e-9)
    model = LogisticRegression(class_weight="balanced").fit((figures - mean) / scale, wanted)
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ mean)
    scores = figures @ weights + bias
    least = float(np.quantile(held_out.figures[:, 1], FAMILIAR_QUANTILE) * UNFAMILIAR_RATIO)
    is_unfamiliar = figures[:, 1] < least
    answered = wanted & ~drafts.is_unknown
    kept = np.where(is_unfamiliar, -np.inf, scores)[answered if answered.any() else wanted]
    highest = np.sort(kept)[max(0, most_beyond(len(kept), share_ratio=MAX_DECLINED_RATIO))]
    outside = slice(len(held_out.figures), None)
    declined_anyway = is_unfamiliar | drafts.is_unknown
    lowest = max(
        _just_above(np.where(declined_anyway, -np.inf, scores)[outside]),
        np.quantile(scores[outside], DECLINED_BY_SCORE_RATIO, method="higher"),
    )
    threshold = float(min(np.nextafter(lowest, np.inf), highest))
    is_declined = declined_anyway | (scores < threshold)
    num_declined = int((kept < threshold).sum())
    num_answered = int((~is_declined[outside]).sum())
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
        declined_right_ratio=num_declined / len(kept),
        declined_right_upper_ratio=upper_share(num_declined, count=len(kept)),
        declined_foreign_ratio=1 - num_answered / len(foreign.figures),
        declined_foreign_lower_ratio=1 - upper_share(num_answered, count=len(foreign.figures)),
    )


def _just_above(scores: Float[np.ndarray, " drafts"]) -> float:
    """The lowest threshold that declines enough of foreign drafts to tell that of all of them."""
    allowed = most_beyond(len(scores), share_ratio=1 - MIN_DECLINED_RATIO)
    return float(np.sort(scores)[-1 - max(0, allowed)])
