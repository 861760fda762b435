"""Questions of a corpus that have no answer: which they are, what they may not ask, and how near to
evaluation they lie.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.leaks import LeakIndex, character_pairs, question_key
from limbeck.contracts.records import Question, Reason, Record
from limbeck.data.corpus.splits import draw_ratio
from limbeck.data.filters.dedup import DUPLICATE
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.filters.record_log import RecordLog

Item = TypeVar("Item")
MAX_EVALUATION, MAX_COMPARED = 200, 2000
"""Of evaluation's questions, and of training's, where the two are compared."""
WITHHELD = Reason("withheld", "不提供标签", "no question, its group without labels", "choice")


def withhold_answers(
    records: Iterable[Record], *, labelled_ratio: float, seed: int, log: RecordLog
) -> tuple[list[Record], list[Record]]:
    """The records that keep their answers, and those of the other groups as bare questions.

    A group's fate hangs on its hash alone, so a smaller share is a part of a larger one. Plain text
    about a group without labels would hold the answer, so it is left out.
    """
    labelled: list[Record] = []
    unlabelled: list[Record] = []
    for record in records:
        if draw_ratio(f"labels:{seed}:{record.group}") < labelled_ratio:
            labelled.append(record)
        elif record.question:
            unlabelled.append(remove_answer(record))
        else:
            log.drop_record(record, reason=WITHHELD)
    return labelled, unlabelled


def remove_answer(record: Record) -> Record:
    """The question alone."""
    entities = tuple(item for item in record.entities if item.part == "question")
    return dataclasses.replace(record, answer="", rejected="", entities=entities)


def keep_new(
    records: Sequence[Record],
    *,
    labelled: Iterable[Record],
    held_out: Sequence[Record | Question],
    log: RecordLog,
) -> list[Record]:
    """The questions that no labelled record, no held-out one and no earlier one of them asks."""
    if not records:
        return []
    asked = LeakIndex(held_out)
    seen = {question_key(record): record.id for record in labelled if record.question}
    kept: list[Record] = []
    for record in records:
        if asked.find(record):
            log.drop_record(record, reason=IN_EVALUATION)
            continue
        first = seen.setdefault(question_key(record), record.id) if not record.images else record.id
        if first == record.id:
            kept.append(record)
        else:
            log.drop_record(record, reason=DUPLICATE, detail=f"of {first}")
    return kept


def describe_unlabelled(
    unlabelled: Sequence[Record], *, labelled: Sequence[Record], questions: Sequence[Question]
) -> JsonObject:
    """How near the questions lie to those of evaluation, beside how near the labelled ones do.

    Of a sample of evaluation's questions, the similarity of the nearest training question (Jaccard,
    over pairs of neighbouring characters) at three quantiles. Far from evaluation, a teacher's
    answers teach little of what is asked there.
    """
    asked = [character_pairs(item.question) for item in _sample(questions, MAX_EVALUATION)]
    return {
        "questions": len(unlabelled),
        "nearest_to_evaluation": _nearest(asked, unlabelled),
        "labelled_nearest_to_evaluation": _nearest(asked, [r for r in labelled if r.question]),
    }


def _nearest(asked: Sequence[frozenset[str]], records: Sequence[Record]) -> dict[str, float]:
    found = [character_pairs(record.question) for record in _sample(records, MAX_COMPARED)]
    if not asked or not found:
        return {}
    nearest = [max(_jaccard(pairs, other) for other in found) for pairs in asked]
    return {
        name: round(float(value), 3)
        for name, value in zip(
            ("10", "50", "90"), np.quantile(nearest, (0.1, 0.5, 0.9)), strict=True
        )
    }


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


def _sample(items: Sequence[Item], count: int) -> Sequence[Item]:
    """So many of the items, evenly spread."""
    step = max(1, -(-len(items) // count))
    return items[::step]
