"""Validation records as questions: what choices between models may be guided by.

The questions of a corpus and its test records only measure, and are never read for this.
"""

import hashlib
from collections.abc import Sequence

from limbeck.contracts.corpus import Corpus, read_task
from limbeck.contracts.errors import DataError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Question, Record, Split
from limbeck.evaluation.metrics import split_items

TASK = "validation"
"""Of no table, so that a question is judged by its form."""


def read_held_out(corpus: Corpus, *, max_questions: int) -> tuple[Question, ...]:
    """At most so many validation records as questions, drawn by a hash of their ids, in order.

    An answer of several items is judged as a list, any other exactly. Records with images, earlier
    turns or no question are left out.

    Raises:
        DataError: there is none.
        LeakError: one of them is trained on, or stands among what only measures.
    """
    records = [
        record
        for record in corpus.records("validation")
        if record.question and not record.images and not record.history
    ]
    if not records:
        raise DataError(
            "no record has a question that a text alone can answer; hold more out with "
            "splits.validation_ratio, or set tune.metric: likelihood",
            path=corpus.records_path("validation"),
        )
    chosen = sorted(records, key=lambda record: _digest(record.id))[:max_questions]
    questions = [_as_question(record) for record in chosen]
    check_apart(corpus, questions=questions)
    questions.sort(key=lambda item: (item.form, len(item.question), item.id))
    return tuple(questions)


def check_apart(corpus: Corpus, *, questions: Sequence[Question]) -> None:
    """Nothing, when no question or group stands in training, in test records or in evaluation.

    Raises:
        LeakError: one does.
    """
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        check_leaks(corpus.records(split), held_out=questions, path=corpus.records_path(split))
    for path in corpus.task_paths():
        check_leaks(read_task(path), held_out=questions, path=path)


def _as_question(record: Record) -> Question:
    items = split_items(record.answer, known=())
    return Question(
        record.id,
        TASK,
        record.question,
        (record.answer,),
        "list" if len(items) > 1 else "single",
        specialty=record.specialty,
        group=record.group,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
