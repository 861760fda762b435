"""A teacher in a folder answers questions, in batches, with how sure it is of each answer.

Answers are appended to a file as they come, so a killed run asks for none of them again. They are
found there by what was asked and by the number of the sample, not by the record: another file may
use the same ids. Which sample is taken is chosen afterwards, from all of them.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from limbeck.contracts.answerer import Answer, Answerer, Apply, Prompt, alternate, apply_here
from limbeck.contracts.artifacts import Artifact, hash_text
from limbeck.contracts.child_process import spawn
from limbeck.contracts.errors import PromptLengthError
from limbeck.contracts.fields import Precision
from limbeck.contracts.records import Record
from limbeck.distillation.agreement import SHOWN_CHARS, take_samples
from limbeck.distillation.endpoint.client import UNSURE, CallError
from limbeck.distillation.endpoint.labeler import Labelled, label_record, replace_answer
from limbeck.distillation.label_forms.config import Answers
from limbeck.env.progress import Advance, track
from limbeck.env.threads import NumThreads
from limbeck.evaluation.profiling.worker import ModelWorker, apply_in
from limbeck.runtimes import open_answerer

UNANSWERED = Answer("", 0, 0.0)
"""To a question that is longer than the teacher reads."""
SEED_DIGITS = 16
"""Hexadecimal digits of a draw's key that are its seed."""


@dataclass(frozen=True)
class Draw:
    """One answer that is wanted: what is asked, and which sample of it."""

    prompt: Prompt
    key: str
    """A hash of everything that the answer depends on besides the teacher."""

    @property
    def seed(self) -> int:
        """Depends on the question and on the number of the sample, not on the batch."""
        return int(self.key[:SEED_DIGITS], 16)


@dataclass(frozen=True)
class FolderAnswers:
    """The samples of each question, and how they were computed."""

    answers: Sequence[Sequence[Answer]]
    kept_in: Path
    num_threads: int


def ask_folder(
    questions: Sequence[Record],
    *,
    model: Artifact,
    write: Answers,
    system: str,
    max_new_tokens: int,
    batch_size: int,
    num_threads: NumThreads,
    precision: Precision,
    num_processes: int,
    state_folder: Path,
    title: str,
) -> FolderAnswers:
    """What a checkpoint or a bundle answers; `title` names the progress bar.

    Raises:
        CheckpointError: the folder holds no model, or a damaged one; or a process of several died.
    """
    opener = functools.partial(
        open_answerer,
        model.path,
        num_threads=num_threads,
        num_rows=batch_size,
        precision=precision,
    )
    rounded = "" if precision == "float32" else f".{precision}"
    state = state_folder / f"answers.{model.manifest.content_hash[:12]}{rounded}.jsonl"
    with (
        _open_models(opener, num_processes=num_processes, name=title) as models,
        track(title, total=len(questions) * write.samples, unit="answer") as advance,
    ):
        found = answer_questions(
            models,
            questions,
            write=write,
            system=system,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            state=state,
            advance=advance,
        )
        return FolderAnswers(found, state, models[0](_count_threads))


@contextmanager
def _open_models(
    opener: Callable[[], Answerer], *, num_processes: int, name: str
) -> Iterator[list[Apply]]:
    """The model in this process, or in several others."""
    with ExitStack() as stack:
        if num_processes == 1:
            yield [apply_here(opener())]
            return
        processes = [stack.enter_context(spawn(name, ModelWorker)) for _ in range(num_processes)]
        for process in processes:
            process.send("reopen", opener=opener)
        for process in processes:
            process.receive()
        yield [apply_in(process) for process in processes]


def _count_threads(answerer: Answerer) -> int:
    return answerer.num_threads()


def answer_questions(
    models: Sequence[Apply],
    records: Sequence[Record],
    *,
    write: Answers,
    system: str,
    max_new_tokens: int,
    batch_size: int,
    state: Path,
    advance: Advance,
) -> list[list[Answer]]:
    """The samples of each record's question; `UNANSWERED` to one too long.

    Several `models` are one model, opened so often; each answers batches as it comes to them.
    `system` is for records that have no instructions of their own; `state` is where answers are
    kept until the entry is made; `advance` counts samples.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    found = _read(state)
    draws = [
        list(_list_draws(item, write=write, system=system, max_new_tokens=max_new_tokens))
        for item in records
    ]
    waiting = {draw.key: draw for row in draws for draw in row if draw.key not in found}
    advance(sum(map(len, draws)) - len(waiting), note="kept from before, or asked twice")
    asked = list(waiting.values())
    batches = [asked[start : start + batch_size] for start in range(0, len(asked), batch_size)]
    answered = _answer_batches(
        models, batches, temperature=write.temperature, max_new_tokens=max_new_tokens
    )
    with state.open("a", encoding="utf-8") as file:
        for batch, answers in zip(batches, answered, strict=True):
            for draw, answer in zip(batch, answers, strict=True):
                found[draw.key] = answer
                line = {"asked": draw.key, **dataclasses.asdict(answer)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            advance(len(batch))
    return [[found[draw.key] for draw in row] for row in draws]


def _answer_batches(
    models: Sequence[Apply],
    batches: Sequence[Sequence[Draw]],
    *,
    temperature: float,
    max_new_tokens: int,
) -> Iterator[list[Answer]]:
    """The answers of each batch, in order, whichever of the models comes to it."""
    free: SimpleQueue[Apply] = SimpleQueue()
    for model in models:
        free.put(model)

    def answer(batch: Sequence[Draw]) -> list[Answer]:
        model = free.get()
        try:
            return model(
                functools.partial(
                    _answer, draws=batch, temperature=temperature, max_new_tokens=max_new_tokens
                )
            )
        finally:
            free.put(model)

    if len(models) == 1:
        yield from map(answer, batches)
        return
    pool = ThreadPoolExecutor(len(models))
    try:
        yield from pool.map(answer, batches)
    finally:
        # Not waited for: after an error, a thread ends with its model's process.
        pool.shutdown(wait=False, cancel_futures=True)


def take_answer(
    record: Record,
    answers: Sequence[Answer],
    *,
    write: Answers,
    max_new_tokens: int,
    min_confidence_ratio: float,
) -> Labelled | CallError:
    """The record with the samples that are taken, or why there is none."""
    samples = [
        _read_sample(
            answer, max_new_tokens=max_new_tokens, min_confidence_ratio=min_confidence_ratio
        )
        for answer in answers
    ]
    try:
        taken = take_samples(
            samples, keep=write.keep, min_agreement_ratio=write.min_agreement_ratio
        )
    except CallError as error:
        return error
    records = [
        dataclasses.replace(
            replace_answer(record, answers[place].text.strip()),
            confidence=round(answers[place].confidence_ratio, 4),
        )
        for place in taken.places
    ]
    return label_record(records, agreement_ratio=taken.agreement_ratio)


def _read_sample(
    answer: Answer, *, max_new_tokens: int, min_confidence_ratio: float
) -> str | CallError:
    """The text of an answer that is usable and sure enough, or why it is not."""
    if answer == UNANSWERED:
        return CallError("too_long", "the question is longer than the teacher reads")
    if answer.num_tokens >= max_new_tokens:
        return CallError("cut_off", f"has not ended after {answer.num_tokens} tokens")
    if not answer.text.strip():
        return CallError("empty", "ends at once")
    if answer.confidence_ratio < min_confidence_ratio:
        return CallError(UNSURE, f"{answer.confidence_ratio:.3f}: {answer.text[:SHOWN_CHARS]}")
    return answer.text.strip()


def _list_draws(
    record: Record, *, write: Answers, system: str, max_new_tokens: int
) -> Iterator[Draw]:
    prompt = Prompt(alternate([*record.history, record.question], system=record.system or system))
    turns = [[item.role, item.content] for item in prompt.messages]
    for sample in range(write.samples):
        drawn = [write.temperature, write.seed, sample] if write.temperature else []
        key = hash_text(json.dumps([turns, max_new_tokens, *drawn], ensure_ascii=False))
        yield Draw(prompt, key)


def _answer(
    answerer: Answerer, draws: Sequence[Draw], *, temperature: float, max_new_tokens: int
) -> list[Answer]:
    prompts = [draw.prompt for draw in draws]
    try:
        if not temperature:
            return answerer.answer(prompts, max_new_tokens=max_new_tokens)
        return answerer.sample(
            prompts,
            seeds=[draw.seed for draw in draws],
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
    except PromptLengthError:
        if len(draws) == 1:
            return [UNANSWERED]
    return [
        answer
        for draw in draws
        for answer in _answer(
            answerer, [draw], temperature=temperature, max_new_tokens=max_new_tokens
        )
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
