"""One model's answers to a corpus's questions, in fixed batches that survive a kill."""

import dataclasses
import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from limbeck.contracts.answerer import Answerer, Apply
from limbeck.contracts.artifacts import Artifact, hash_text
from limbeck.contracts.corpus import Corpus, read_task
from limbeck.contracts.errors import ArtifactError, DataError
from limbeck.contracts.records import Question, Record
from limbeck.env.progress import Advance, track
from limbeck.evaluation.metrics import Share, clustered_interval
from limbeck.evaluation.tasks import Response, ask, score_response

DIGITS = 6
"""Probabilities are kept to so many decimals."""


@dataclass(frozen=True)
class AnsweredQuestion:
    """One question with a model's answer and the verdict on it."""

    id: str
    task: str
    form: str
    question: str
    expected: tuple[str, ...]
    specialty: str
    group: str
    answer: str
    correct: bool
    agreement_ratio: float
    confidence_ratio: float
    option_scores: tuple[float, ...]
    options: tuple[str, ...] = ()
    answer_tokens: int = 0
    """Tokens of the written answer, its end included, where its score is in `option_scores`."""
    is_too_long: bool = False
    """Whether the question is longer than the model reads, so that it was not answered."""

    @property
    def cluster(self) -> str:
        """The question's group, whatever the task: one fact may be a free question and a choice."""
        return self.group or self.id

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "AnsweredQuestion":
        """The object that `dataclasses.asdict` wrote."""
        value = dict(value)
        value["expected"] = tuple(value["expected"])
        value["option_scores"] = tuple(value["option_scores"])
        value["options"] = tuple(value.get("options", ()))
        return cls(**value)


def count_correct(
    answered: Sequence[AnsweredQuestion], *, correct: Sequence[bool] | None = None
) -> Share:
    """The share answered right, with its interval; `correct` judges in place of the verdicts."""
    verdicts = [item.correct for item in answered] if correct is None else correct
    return clustered_interval(
        correct=np.array(verdicts, dtype=bool),
        groups=[item.cluster for item in answered],
    )


@dataclass(frozen=True)
class QuestionSet:
    """The questions to ask, in asking order, and how many each task holds in all."""

    questions: tuple[Question, ...]
    available: dict[str, int]
    held_out: tuple[Record | Question, ...]
    """What training must share nothing with."""
    num_left_out: int | None = None
    """Records of the test split that cannot be asked; None where no such records are."""


def read_questions(corpus: Corpus, *, max_questions: int) -> QuestionSet:
    """At most so many questions of each task, drawn by a hash of their ids, so always the same.

    Raises:
        ArtifactError: the corpus has no questions.
        DataError: a line is no question, or two share an id.
    """
    chosen: list[Question] = []
    available = {}
    for path in corpus.task_paths():
        found = list(read_task(path))
        ids = {question.id for question in found}
        if len(ids) != len(found):
            raise DataError(f"{len(found) - len(ids)} questions repeat an id", path=path)
        if not found:
            continue
        available[path.stem] = len(found)
        chosen += sorted(found, key=lambda question: hash_text(question.id))[:max_questions]
    if not chosen:
        raise ArtifactError(
            f"{corpus.questions_path}: no questions; make a corpus whose sources hold some"
        )
    chosen = [locate_images(question, corpus.folder) for question in chosen]
    chosen.sort(key=lambda item: (item.task, item.form, len(item.question), item.id))
    return QuestionSet(tuple(chosen), available, held_out=tuple(chosen))


def locate_images(question: Question, folder: Path) -> Question:
    """The question with its images as paths that can be opened.

    Raises:
        DataError: one of them is not in the corpus.
    """
    paths = tuple(str(folder / name) for name in question.images)
    for path in paths:
        if not Path(path).is_file():
            raise DataError(
                f"question {question.id!r} asks about an image that is not there; make "
                "the corpus again",
                path=path,
            )
    return dataclasses.replace(question, images=paths)


def make_batches(questions: Sequence[Question], *, batch_size: int) -> list[tuple[Question, ...]]:
    """The questions in order, divided where the task or the form changes or a batch is full."""
    batches: list[list[Question]] = []
    for question in questions:
        last = batches[-1] if batches else []
        same = bool(last) and (last[0].task, last[0].form) == (question.task, question.form)
        if same and len(last) < batch_size:
            last.append(question)
        else:
            batches.append([question])
    return [tuple(batch) for batch in batches]


def check_unique(models: Sequence[Artifact]) -> None:
    """Nothing, where every model has a name of its own.

    Raises:
        ArtifactError: two have the same one.
    """
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArtifactError(
            f"models: two artifacts bear the name {twice[0]!r}, so their rows could not be told "
            "apart; rename one of the folders"
        )


def answer_with_each(
    models: Sequence[Artifact],
    questions: Sequence[Question],
    *,
    open_model: Callable[[Artifact], Apply],
    batch_size: int,
    max_new_tokens: int,
    state: Path,
    title: str,
    num_at_once: int = 1,
) -> dict[str, list[AnsweredQuestion]]:
    """Every model's answers to all questions, by its name; no two models have one name.

    `state` is a folder with a file for each model, as `answer_all` has it; `title` names the
    progress bar. More than one model at once is for models in processes of their own, which end
    when this raises.
    """
    batches = make_batches(questions, batch_size=batch_size)
    state.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    with track(title, total=len(questions) * len(models), unit="question") as advance:

        def answer(model: Artifact) -> list[AnsweredQuestion]:
            def show(num: int, note: str = "") -> None:
                with lock:
                    advance(num, f"{model.name} {note}".strip())

            return answer_all(
                open_model=functools.partial(open_model, model),
                batches=batches,
                max_new_tokens=max_new_tokens,
                advance=show,
                state=state / f"{model.name}.{model.manifest.content_hash[:12]}.jsonl",
            )

        if num_at_once == 1:
            return {model.name: answer(model) for model in models}
        pool = ThreadPoolExecutor(num_at_once)
        waiting = {pool.submit(answer, model): model.name for model in models}
        try:
            found = {waiting[future]: future.result() for future in as_completed(waiting)}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return {model.name: found[model.name] for model in models}


def answer_all(
    *,
    open_model: Callable[[], Apply],
    batches: Sequence[tuple[Question, ...]],
    max_new_tokens: int,
    state: Path,
    advance: Advance,
) -> list[AnsweredQuestion]:
    """Every question answered and scored; batches that `state` holds are not answered again.

    `state` is a file that grows by one line a batch. Batches never change with a kill, so neither
    do the answers. The model is opened only when a batch is left.
    """
    done = list(_read_state(state, batches))
    results = [item for batch in done for item in batch]
    advance(len(results))
    if len(done) == len(batches):
        return results
    apply = open_model()
    with state.open("w", encoding="utf-8") as file:
        for batch in done:
            _append(file, batch)
        for batch in batches[len(done) :]:
            scored = apply(
                functools.partial(answer_batch, questions=batch, max_new_tokens=max_new_tokens)
            )
            _append(file, scored)
            results += scored
            right = sum(item.correct for item in results)
            advance(len(scored), f"{right}/{len(results)} right")
    return results


def answer_batch(
    answerer: Answerer, questions: tuple[Question, ...], max_new_tokens: int
) -> list[AnsweredQuestion]:
    """The questions of one batch, answered and scored."""
    responses = ask(answerer, questions, max_new_tokens=max_new_tokens)
    return [
        record_answer(question, response)
        for question, response in zip(questions, responses, strict=True)
    ]


def record_answer(question: Question, response: Response) -> AnsweredQuestion:
    """A question with the response to it and the verdict on that."""
    verdict = score_response(question, response)
    return AnsweredQuestion(
        question.id,
        question.task,
        question.form,
        question.question,
        question.answers,
        question.specialty,
        question.group,
        response.text,
        verdict.correct,
        round(verdict.agreement_ratio, DIGITS),
        round(response.confidence_ratio, DIGITS),
        tuple(round(score, DIGITS) for score in response.option_scores),
        question.options if response.option_scores else (),
        response.answer_tokens,
        response.is_too_long,
    )


def _append(file: TextIO, batch: Sequence[AnsweredQuestion]) -> None:
    line = json.dumps([dataclasses.asdict(item) for item in batch], ensure_ascii=False)
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


def _read_state(
    state: Path, batches: Sequence[tuple[Question, ...]]
) -> Iterator[list[AnsweredQuestion]]:
    """Whole batches that an earlier run answered; a line cut by a kill ends them."""
    if not state.is_file():
        return
    lines = state.read_bytes().decode("utf-8", errors="replace").split("\n")
    for line, batch in zip(lines, batches, strict=False):
        try:
            kept = [AnsweredQuestion.from_json(value) for value in json.loads(line)]
        except (ValueError, TypeError, KeyError):
            return
        if [item.id for item in kept] != [question.id for question in batch]:
            return
        yield kept
