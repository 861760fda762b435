"""A teacher in a folder answers questions: greedily, in batches, with how sure it is of each.

Answers are appended to a file as they come, so a killed run asks for none of them again. They are
found there by what was asked, not by the record: another file may use the same ids.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from limbeck.contracts.answerer import Answer, Answerer, Prompt, alternate
from limbeck.contracts.artifacts import hash_text
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
) -> list[Answer]:
    """The answer to each record's question; `UNANSWERED` to one too long.

    `system` is for records that have no instructions of their own; `state` is where answers are
    kept until the entry is made.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    found = _read(state)
    prompts = [
        Prompt(alternate([*item.history, item.question], system=item.system or system))
        for item in records
    ]
    keys = [_key(prompt, max_new_tokens=max_new_tokens) for prompt in prompts]
    waiting = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in found}
    advance(len(records) - len(waiting), note="kept from before, or asked twice")
    with state.open("a", encoding="utf-8") as file:
        asked = list(waiting)
        for start in range(0, len(asked), batch_size):
            batch = asked[start : start + batch_size]
            answers = _answer(
                answerer, [waiting[key] for key in batch], max_new_tokens=max_new_tokens
            )
            for key, answer in zip(batch, answers, strict=True):
                found[key] = answer
                line = {"asked": key, **dataclasses.asdict(answer)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            advance(len(batch))
    return [found[key] for key in keys]


def _key(prompt: Prompt, *, max_new_tokens: int) -> str:
    turns = [[item.role, item.content] for item in prompt.messages]
    return hash_text(json.dumps([turns, max_new_tokens], ensure_ascii=False))


def _answer(answerer: Answerer, prompts: Sequence[Prompt], *, max_new_tokens: int) -> list[Answer]:
    try:
        return answerer.answer(prompts, max_new_tokens=max_new_tokens)
    except PromptLengthError:
        if len(prompts) == 1:
            return [UNANSWERED]
    return [
        answer
        for prompt in prompts
        for answer in _answer(answerer, [prompt], max_new_tokens=max_new_tokens)
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
        key = value.pop("asked")
        found[key] = Answer(**value)
    return found
