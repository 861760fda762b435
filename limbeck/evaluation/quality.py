"""What a model's answers are worth beside accuracy: as texts, as labels, and by their likelihood.

Every figure has a 95 % interval in which the questions of one group count together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from limbeck.contracts.serialization import OPTIONAL
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.held_out_questions import HELD_OUT_TASKS
from limbeck.evaluation.metrics import (
    Interval,
    Share,
    clustered_mean,
    exact_match,
    label_key,
    macro_f1,
    ratio_of_sums,
)
from limbeck.evaluation.text_overlap import chrf, rouge_l, token_f1, tokenize

Score = Callable[[str, str], float]
"""Of an answer and a written one."""
MAX_LABELS_RATIO = 0.2
"""Single answers are labels where they are so few, over the questions."""
LEAST_DISTINCT_RATIO = 0.5
"""Single answers are texts where more of them are distinct, over the questions."""
LEAST_FREE_ANSWERS = 5
"""Of fewer, nothing tells labels from texts."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, and of how many questions it is one."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class TextScores:
    """How much generated answers share with the written ones; means over questions, 0 to 1."""

    exact_match: Share
    token_f1: Estimate
    chrf: Estimate
    rouge_l: Estimate
    entity_f1: Estimate | None = field(default=None, metadata=OPTIONAL)
    """Of the answers that are lists, as sets of items; None where none is."""


@dataclass(frozen=True)
class LabelScores:
    """How well labels are distinguished; all labels weigh alike in `macro_f1`."""

    accuracy: Share
    macro_f1: Estimate
    num_labels: int


@dataclass(frozen=True)
class Likelihoods:
    """How probable a model finds the written answers."""

    per_token: Estimate
    """Mean over records of the mean log-probability per token."""
    nats_per_byte: Estimate
    """Minus the log-probability of all answers, their ends included, over their UTF-8 bytes."""


def by_task(answered: Sequence[AnsweredQuestion]) -> dict[str, list[AnsweredQuestion]]:
    """The answers of each task, in order."""
    found: dict[str, list[AnsweredQuestion]] = {}
    for item in answered:
        found.setdefault(item.task, []).append(item)
    return found


def measure_texts(answered: Sequence[AnsweredQuestion], *, language: str) -> dict[str, TextScores]:
    """The scores of held-out records, and of each task's answers that are free texts."""
    found = {}
    for task, items in by_task(answered).items():
        free = items if task in HELD_OUT_TASKS else _free_answers(items)
        if free:
            found[task] = _measure_text(free, language=language)
    return found


def _free_answers(items: Sequence[AnsweredQuestion]) -> list[AnsweredQuestion]:
    """The questions of a task that ask for a text of its own: for no label, list or choice."""
    found = [
        item
        for item in items
        if item.form == "single"
        and not (len(item.options) > 1 and set(item.expected) <= set(item.options))
    ]
    num_answers = len({item.expected for item in found})
    is_free = len(found) >= LEAST_FREE_ANSWERS and num_answers > LEAST_DISTINCT_RATIO * len(found)
    return found if is_free else []


def _measure_text(items: Sequence[AnsweredQuestion], *, language: str) -> TextScores:
    def overlap(score: Callable[..., float]) -> Score:
        def compare(answer: str, expected: str) -> float:
            given, right = (tokenize(text, language=language) for text in (answer, expected))
            return score(given, expected=right)

        return compare

    def mean(score: Score) -> Estimate:
        values = [max(score(item.answer, text) for text in item.expected) for item in items]
        found = clustered_mean(values=np.array(values), groups=[item.cluster for item in items])
        return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0), len(items))

    equal = [exact_match(item.answer, expected=item.expected, language=language) for item in items]
    return TextScores(
        exact_match=count_correct(items, correct=equal),
        token_f1=mean(overlap(token_f1)),
        chrf=mean(lambda answer, expected: chrf(answer, expected=expected)),
        rouge_l=mean(overlap(rouge_l)),
        entity_f1=_measure_lists([item for item in items if item.form == "list"]),
    )


def _measure_lists(items: Sequence[AnsweredQuestion]) -> Estimate | None:
    if not items:
        return None
    values = np.array([item.agreement_ratio for item in items])
    found = clustered_mean(values=values, groups=[item.cluster for item in items])
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0), len(items))


def measure_labels(answered: Sequence[AnsweredQuestion]) -> dict[str, LabelScores]:
    """The scores of each task whose right answers are labels: single answers of few kinds."""
    found = {}
    for task, items in by_task(answered).items():
        labels = sorted({item.expected[0] for item in items})
        is_single = all(item.form == "single" and len(item.expected) == 1 for item in items)
        if is_single and 1 < len(labels) <= MAX_LABELS_RATIO * len(items):
            found[task] = _measure_labels(items, labels=labels)
    return found


def _measure_labels(items: Sequence[AnsweredQuestion], *, labels: Sequence[str]) -> LabelScores:
    places = {label_key(label): place for place, label in enumerate(labels)}
    right = [labels.index(item.expected[0]) for item in items]
    given = [
        place if item.correct else places.get(label_key(item.answer), -1)
        for item, place in zip(items, right, strict=True)
    ]
    f1 = macro_f1(
        given=np.array(given),
        right=np.array(right),
        num_labels=len(labels),
        groups=[item.cluster for item in items],
    )
    return LabelScores(count_correct(items), _counted(f1, len(items)), len(labels))


def measure_likelihoods(
    answered: Sequence[AnsweredQuestion], *, others: Sequence[Sequence[AnsweredQuestion]]
) -> Likelihoods | None:
    """Of the held-out records that every model can read; None where there are none."""
    read = _find_read(others)
    if not read:
        return None
    items = [answered[place] for place in read]
    scores = np.array([item.option_scores[0] for item in items])
    mean = clustered_mean(values=scores, groups=[item.cluster for item in items])
    return Likelihoods(_counted(mean, len(read)), _per_byte(items, nats=_sum_nats(items)))


def compare_likelihoods(
    answered: Sequence[AnsweredQuestion], *, reference: Sequence[AnsweredQuestion]
) -> Estimate | None:
    """Nats a byte minus the reference's, of the held-out records that both read.

    Less is better. None where there are none.
    """
    read = _find_read([answered, reference])
    if not read:
        return None
    own, others = ([items[place] for place in read] for items in (answered, reference))
    return _per_byte(own, nats=_sum_nats(own) - _sum_nats(others))


def _find_read(models: Sequence[Sequence[AnsweredQuestion]]) -> list[int]:
    """Places of the held-out records whose answers every model has read."""
    return [
        place
        for place, items in enumerate(zip(*models, strict=True))
        if all(item.task in HELD_OUT_TASKS and item.option_scores for item in items)
    ]


def _sum_nats(items: Sequence[AnsweredQuestion]) -> Float[np.ndarray, " questions"]:
    """Minus the log-probability of each written answer."""
    return np.array([-item.option_scores[0] * item.answer_tokens for item in items])


def _per_byte(
    items: Sequence[AnsweredQuestion], *, nats: Float[np.ndarray, " questions"]
) -> Estimate:
    sizes = np.array([len(item.expected[0].encode()) for item in items])
    _, inverse = np.unique(np.array([item.cluster for item in items]), return_inverse=True)
    found = ratio_of_sums(
        sums=np.bincount(inverse, weights=nats),
        counts=np.bincount(inverse, weights=sizes).astype(np.int64),
    )
    return _counted(found, len(items))


def _counted(found: Interval, count: int) -> Estimate:
    return Estimate(found.value, found.low, found.high, count)


def compare_to_floors(
    shares: Mapping[str, Share], *, floors: Mapping[str, Mapping[str, Share]]
) -> dict[str, tuple[str, ...]]:
    """Each task in which a floor answers more questions right, with those floors."""
    beaten = {
        task: tuple(
            name
            for name, tasks in floors.items()
            if task in tasks and tasks[task].value > share.value
        )
        for task, share in shares.items()
    }
    return {task: names for task, names in beaten.items() if names}
