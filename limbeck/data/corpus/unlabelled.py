"""Questions of a corpus that have no answer: which they are, and what they may not ask."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

from limbeck.contracts.leaks import LeakIndex, question_key
from limbeck.contracts.records import Question, Reason, Record
from limbeck.data.corpus.splits import HASH_SPAN
from limbeck.data.filters.dedup import DUPLICATE
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.filters.record_log import RecordLog

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
        digest = hashlib.sha256(f"labels:{seed}:{record.group}".encode()).digest()
        if int.from_bytes(digest[:8], "big") / HASH_SPAN < labelled_ratio:
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
    records: Iterable[Record],
    *,
    labelled: Iterable[Record],
    held_out: Sequence[Record | Question],
    log: RecordLog,
) -> list[Record]:
    """The questions that no labelled record, no held-out one and no earlier one of them asks."""
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
