"""Held-out records as questions: test records measure, validation records guide choices.

What guides a choice is never read from the test split or from the questions of the corpus.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.corpus import Corpus, read_task
from limbeck.contracts.errors import DataError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Question, Record, Split
from limbeck.evaluation.answer_questions import QuestionSet, locate_images, read_questions

QuestionSource = Literal["auto", "pack", "test"]
VALIDATION = "validation"
"""Of no table, so that a question is scored by its form."""
TEST_SPLIT = "test_split"
"""The task of test records."""
TEST_IMAGES = "test_images"
"""The task of those about images."""
HELD_OUT_TASKS = (TEST_SPLIT, TEST_IMAGES)


def read_held_out(corpus: Corpus, *, max_questions: int) -> tuple[Question, ...]:
    """At most so many validation records as questions, drawn by a hash of their ids, in order.

    An answer that its source knows to be a list is scored as one, any other exactly. Records with
    images or no question are left out.

    Raises:
        DataError: there is none.
        LeakError: one of them is trained on, or stands among what only measures.
    """
    records = list(filter(_can_stand_alone, corpus.records("validation")))
    if not records:
        raise DataError(
            "no record has a question that a text alone can answer; hold more out with "
            "splits.validation_ratio, or set tune.metric: likelihood",
            path=corpus.records_path("validation"),
        )
    chosen = _draw(records, count=max_questions)
    questions = [_as_question(record, task=VALIDATION) for record in chosen]
    check_apart(corpus, questions=questions)
    questions.sort(key=lambda item: (item.form, len(item.question), item.id))
    return tuple(questions)


def read_evaluation(
    corpus: Corpus,
    *,
    source: QuestionSource,
    max_questions: int,
    language: str = "",
    reads_images: bool = False,
) -> QuestionSet:
    """The questions that an evaluation measures with; `language` is that of their answers.

    Test records about images are among them where every model `reads_images`.

    Raises:
        ArtifactError, DataError: the source holds none, or one that cannot be scored.
    """
    if source == "test" or (source == "auto" and next(corpus.questions(), None) is None):
        found = read_test_split(corpus, max_questions=max_questions, reads_images=reads_images)
    else:
        found = read_questions(corpus, max_questions=max_questions)
    questions = (dataclasses.replace(item, language=language) for item in found.questions)
    return dataclasses.replace(found, questions=tuple(questions))


def read_test_split(
    corpus: Corpus, *, max_questions: int, reads_images: bool = False
) -> QuestionSet:
    """At most so many test records of each task as questions, drawn by a hash of their ids.

    Raises:
        DataError: no test record is a question that a text alone can answer, or, where every model
            `reads_images`, no question.
    """
    records = list(corpus.records("test"))
    fitting = {TEST_SPLIT: list(filter(_can_stand_alone, records))}
    if reads_images:
        fitting[TEST_IMAGES] = [item for item in records if item.question and item.images]
    fitting = {task: found for task, found in fitting.items() if found}
    if not fitting:
        about_images = any(item.images for item in records) and not reads_images
        raise DataError(
            f"the corpus is to be evaluated by its test split, and none of its {len(records)} "
            "records is a question that a text alone can answer; hold more out with "
            "splits.test_ratio, or give the corpus a source with questions"
            f"{', or evaluate only models that read images' if about_images else ''}",
            path=corpus.records_path("test"),
        )
    chosen = {task: _draw(found, count=max_questions) for task, found in fitting.items()}
    questions = [
        locate_images(_as_question(record, task=task), corpus.folder)
        for task, drawn in chosen.items()
        for record in drawn
    ]
    questions.sort(key=lambda item: (item.task, item.form, len(item.question), item.id))
    available = {task: len(found) for task, found in fitting.items()}
    held_out = tuple(record for drawn in chosen.values() for record in drawn)
    return QuestionSet(
        tuple(questions), available, held_out, len(records) - sum(available.values())
    )


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


def _can_stand_alone(record: Record) -> bool:
    """Whether a text asks all that the record asks."""
    return bool(record.question) and not record.images


def _draw(records: Sequence[Record], *, count: int) -> list[Record]:
    """At most so many records, by a hash of their ids, so always the same."""
    return sorted(records, key=lambda record: hash_text(record.id))[:count]


def _as_question(record: Record, *, task: str) -> Question:
    return Question(
        record.id,
        task,
        record.question,
        (record.answer,),
        record.answer_form,
        options=(record.answer,) if task in HELD_OUT_TASKS else (),
        specialty=record.specialty,
        group=record.group,
        history=record.history,
        system=record.system,
        images=record.images,
    )
