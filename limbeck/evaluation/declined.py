"""How often a calibrated model says that it does not know, and whether it is right to."""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.contracts.answer_policy import AnswerPolicy, repeats
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.metrics import Share, exact_match


@dataclass(frozen=True)
class Declined:
    """Shares of questions that are answered with 不知道, each with its 95 % interval."""

    foreign: Share
    """Of questions of other domains and languages, which took no part in the calibration."""
    right: Share
    """Of generated answers that are right."""
    wrong: Share
    """Of generated answers that are wrong."""


def measure_declined(
    policy: AnswerPolicy,
    *,
    answered: Sequence[AnsweredQuestion],
    foreign: Sequence[AnsweredQuestion],
    unknown_answers: Sequence[str],
) -> Declined | None:
    """The shares of one model; None where it is not calibrated.

    An answer that itself says that the model does not know counts as declined where it is wrong
    or foreign, and not at all where it is right: declining it changes nothing.
    """
    if policy.familiarity is None:
        return None

    def is_unknown(item: AnsweredQuestion) -> bool:
        return exact_match(item.answer, expected=unknown_answers)

    def count(items: Sequence[AnsweredQuestion]) -> Share:
        declined = [is_unknown(item) or is_declined(item, policy=policy) for item in items]
        return count_correct(items, correct=declined)

    generated = [item for item in answered if item.form != "choice"]
    return Declined(
        foreign=count(foreign),
        right=count([item for item in generated if item.correct and not is_unknown(item)]),
        wrong=count([item for item in generated if not item.correct]),
    )


def is_declined(item: AnsweredQuestion, *, policy: AnswerPolicy) -> bool:
    """Whether a model's policy answers 不知道 in the place of what the model wrote."""
    judgement = policy.judge(item.question, confidence_ratio=item.confidence_ratio)
    return repeats(item.answer) or (judgement is not None and not judgement.is_sure)
