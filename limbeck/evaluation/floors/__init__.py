"""Floors: what answers the same questions from the training records alone, without a model.

A model that a floor beats has learnt less than a table look-up. Every floor answers as a model
does, so that one code scores both.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.records import Question, Record
from limbeck.env.progress import track
from limbeck.evaluation.answer_questions import AnsweredQuestion, record_answer
from limbeck.evaluation.floors.named_entities import EntityIndex
from limbeck.evaluation.floors.pixels import answer_by_pixels
from limbeck.evaluation.floors.text_pool import TextIndex, TextPool
from limbeck.evaluation.tasks import Response

FloorName = Literal["majority", "lookup", "entity_lookup", "linear"]
FLOORS: tuple[FloorName, ...] = get_args(FloorName)
Missing = Literal[
    "no training record of this kind",
    "the question is an image",
    "several images in one question",
    "too many different answers",
    "one answer only",
]
"""Why a floor has no answers to the questions of a task."""
MAX_RECORDS = 50_000
"""Training records looked at, drawn by a hash of their ids."""
MAX_LINEAR_ANSWERS = 200


@dataclass(frozen=True)
class Floor:
    """The answers of one floor, and the tasks that it cannot answer with the reason."""

    name: FloorName
    answered: tuple[AnsweredQuestion, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)


def make_floors(
    read_records: Callable[[], Iterable[Record]],
    *,
    folder: Path,
    questions: Sequence[Question],
    names: Sequence[FloorName],
) -> tuple[Floor, ...]:
    """Every named floor, made from training records alone, with its answers to the questions.

    The records are read once for texts and once for images, which are files in `folder`, and only
    those drawn are held. Where no training question has a marked name, there is no `entity_lookup`.
    """
    if not names:
        return ()
    texts = TextIndex(_draw(item for item in read_records() if item.question and not item.images))
    entities = EntityIndex(texts.records)
    with_images = TextIndex([])
    if any(question.images for question in questions):
        chosen = _draw(item for item in read_records() if item.question and item.images)
        with_images = TextIndex(chosen)
    names = [name for name in names if name != "entity_lookup" or entities.has_names]
    answers: dict[FloorName, dict[int, Response]] = {name: {} for name in names}
    missing: dict[FloorName, dict[str, Missing]] = {name: {} for name in names}
    tasks: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        tasks.setdefault(question.task, []).append(place)
    with track("floors", total=len(tasks) * len(names), unit="tasks") as advance:
        for task, places in tasks.items():
            members = [questions[place] for place in places]
            about_images = any(question.images for question in members)
            pool = TextPool(with_images if about_images else texts, members)
            for name in names:
                if about_images:
                    found = _answer_images(name, pool=pool, folder=folder)
                else:
                    found = _answer_texts(name, pool=pool, entities=entities)
                if isinstance(found, str):
                    missing[name][task] = found
                else:
                    answers[name] |= dict(zip(places, found, strict=True))
                advance(1)
    return tuple(
        Floor(
            name,
            tuple(
                record_answer(questions[place], response)
                for place, response in sorted(answers[name].items())
            ),
            missing[name],
        )
        for name in names
    )


def _answer_texts(
    name: FloorName, *, pool: TextPool, entities: EntityIndex
) -> list[Response] | Missing:
    """A floor's answers to the questions of one task, or why it has none."""
    if not pool.places:
        return "no training record of this kind"
    if name == "majority":
        return _respond(pool.majority())
    if name == "lookup":
        return _respond(pool.lookup())
    if name == "entity_lookup":
        return _respond(pool.copy_answers(entities.similarities(pool)))
    return _refuse_linear(pool) or _respond(pool.linear())


def _answer_images(name: FloorName, *, pool: TextPool, folder: Path) -> list[Response] | Missing:
    """The same for questions about images."""
    if not pool.places:
        return "no training record of this kind"
    if name == "majority":
        return _respond(pool.majority())
    if name != "linear":
        return "the question is an image"
    records = [pool.index.records[place] for place in pool.places]
    if any(len(item.images) != 1 for item in (*records, *pool.questions)):
        return "several images in one question"
    return _refuse_linear(pool) or answer_by_pixels(pool, folder=folder)


def _refuse_linear(pool: TextPool) -> Missing | None:
    """Why no classifier can be made; None where one can."""
    if len(pool.counts) == 1:
        return "one answer only"
    return "too many different answers" if len(pool.counts) > MAX_LINEAR_ANSWERS else None


def _respond(texts: Iterable[str]) -> list[Response]:
    return [Response(text, 1.0) for text in texts]


def _draw(records: Iterable[Record]) -> list[Record]:
    """At most so many records, by a hash of their ids, in their own order."""
    ranked = ((hash_text(record.id), place, record) for place, record in enumerate(records))
    drawn = heapq.nsmallest(MAX_RECORDS, ranked, key=lambda item: item[:2])
    return [record for _, _, record in sorted(drawn, key=lambda item: item[1])]
