"""A teacher in a folder answers questions: greedily, in batches, with how sure it is of each.

Answers are appended to a file as they come, so a killed run asks for none of them again.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from limbeck.contracts.answerer import Answer, Answerer, Prompt, alternate
from limbeck.contracts.errors import PromptLengthError
from limbeck.contracts.records import Record
from limbeck.env.progress import Advance

UNANSWERED = Answer("", 0, 0.0)
"""To a question that is longer than the teacher reads."""


def answer_questions(
    answerer: Answerer,
    records: Sequence[Record],
    *,
    system: str,
    max_new_tokens: int,
    batch_size: int,
    state: Path,
    advance: Advance,
) -> dict[str, Answer]:
    """The answer to each record's question, by the record's id; `UNANSWERED` to one too long.

    `system` is for records that have no instructions of their own; `state` is where answers are
    kept until the entry is made.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    found = _read(state)
    advance(sum(record.id in found for record in records), note="kept from before")
    waiting = [record for record in records if record.id not in found]
    with state.open("a", encoding="utf-8") as file:
        for start in range(0, len(waiting), batch_size):
            batch = waiting[start : start + batch_size]
            answers = _answer(answerer, batch, system=system, max_new_tokens=max_new_tokens)
            for record, answer in zip(batch, answers, strict=True):
                found[record.id] = answer
                line = {"id": record.id, **dataclasses.asdict(answer)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            advance(len(batch))
    return found


def _answer(
    answerer: Answerer, records: Sequence[Record], *, system: str, max_new_tokens: int
) -> list[Answer]:
    prompts = [
        Prompt(alternate([*item.history, item.question], system=item.system or system))
        for item in records
    ]
    try:
        return answerer.answer(prompts, max_new_tokens=max_new_tokens)
    except PromptLengthError:
        if len(records) == 1:
            return [UNANSWERED]
    return [
        answer
        for record in records
        for answer in _answer(answerer, [record], system=system, max_new_tokens=max_new_tokens)
    ]


def _read(state: Path) -> dict[str, Answer]:
    """The answers of an earlier run; a line that was cut short is asked again."""
    found: dict[str, Answer] = {}
    if not state.is_file():
        return found
    whole, _, rest = state.read_bytes().rpartition(b"\n")
    if rest:
        state.write_bytes(whole + b"\n" if whole else b"")
    for line in whole.decode().splitlines():
        value = json.loads(line)
        id_ = value.pop("id")
        found[id_] = Answer(**value)
    return found
