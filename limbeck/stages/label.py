"""Corpus and teacher to a corpus whose training answers are the teacher's.

Only training questions are asked.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from limbeck.contracts.artifacts import MANIFEST, Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, EndpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Record, write_jsonl
from limbeck.distillation.agreement import DisagreementError, agreement_ratios
from limbeck.distillation.endpoint.ask_server import ask_server
from limbeck.distillation.endpoint.client import CallError
from limbeck.distillation.endpoint.labeler import Labelled, ScoreAnswers
from limbeck.distillation.label_forms.config import Answers, LabelForm
from limbeck.distillation.local_labels import (
    UNANSWERED,
    FolderAnswers,
    ask_folder,
    take_answer,
)
from limbeck.distillation.question_choice.selection import linear_margins
from limbeck.distillation.teachers.endpoint import LabelsManifest, write_labels
from limbeck.evaluation.metrics import entity_f1
from limbeck.evaluation.report.without_teacher import LABELS_KEPT
from limbeck.reinforcement.rewards import AnswerSample, check_domain, score
from limbeck.stages.config.label import Config

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class LabelOutcomes:
    """What became of each question, and what the metrics say of the teacher."""

    results: Sequence[Labelled | CallError]
    metrics: JsonObject
    labels: LabelsManifest | None = None
    """Of the log-probabilities, where these were asked for."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the corpus, and `failed.jsonl` with every question that got no answer."""
    corpus = Corpus(work.one("corpus").path)
    train, bare = list(corpus.records("train")), list(corpus.unlabelled())
    asked = bare or train
    _check_held_out(asked, corpus=corpus)
    rows = [row for row, item in enumerate(asked) if item.question and not item.images]
    if not rows:
        raise DataError(
            "no training record is a question without images, so there is nothing to label; "
            "prepare others",
            path=corpus.records_path("train"),
        )
    num_askable = len(rows)
    if config.choose.is_limited:
        rows = _choose_questions(rows, bare=bare, train=train, config=config, work=work)
    questions = [asked[row] for row in rows]
    if config.endpoint is None:
        outcome = _ask_teacher(questions, config, work)
    else:
        outcome = _ask_server(questions, config, work, corpus)
    results = dict(zip(rows, outcome.results, strict=True))
    failures = _failures(questions, outcome.results)
    if bare:
        # What got no answer stays without one.
        answered = {row: item for row, item in results.items() if isinstance(item, Labelled)}
        kept: list[tuple[Record, Labelled | None]] = [(record, None) for record in train]
        kept += [pair for item in answered.values() for pair in _list_records(item)]
        left = [record for row, record in enumerate(bare) if row not in answered]
    else:
        kept = [
            pair
            for row, record in enumerate(train)
            for pair in _finish(record, results.get(row), config)
        ]
        left = []
    labelled = [item for _, item in kept]
    shutil.copytree(
        corpus.folder,
        work.folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(MANIFEST, corpus.page_path.name, "labels", "failed.jsonl"),
    )
    labelled_corpus = Corpus(work.folder)
    labelled_corpus.write_records("train", [record for record, _ in kept])
    labelled_corpus.write_unlabelled(left)
    write_jsonl(
        work.folder / "failed.jsonl",
        [{"id": id_, "reason": error.reason, "detail": error.detail} for id_, error in failures],
    )
    if outcome.labels is not None:
        write_labels(
            work.folder,
            [None if item is None else item.labels for item in labelled],
            manifest=outcome.labels,
        )
    labelled_corpus.add_to_card("labelled_by", _describe_teacher(config))
    return {
        "asked": len(questions),
        "labelled": len(questions) - len(failures),
        "failed": _count(failures),
        "not_chosen": num_askable - len(questions),
        "not_asked": len(asked) - num_askable,
        LABELS_KEPT: len(train) if bare else 0,
        **_describe_agreement(outcome.results, write=config.write),
        **outcome.metrics,
        **config.write.describe([item for item in labelled if item is not None]),
    }


def _choose_questions(
    rows: Sequence[int],
    *,
    bare: Sequence[Record],
    train: Sequence[Record],
    config: Config,
    work: Work,
) -> list[int]:
    """The rows of the questions without an answer that are asked.

    Raises:
        DataError: there are none, or the labelled records make no model that could choose.
    """
    if not bare:
        raise DataError(
            f"choose {config.choose.kind!r}: every training question of the corpus has an answer; "
            "prepare it with a source of kind `questions` or with `labelled_ratio`, or leave "
            "`choose` out",
            path=work.one("corpus").path,
        )
    questions = [bare[row] for row in rows]

    def measure_margins() -> Float[np.ndarray, " questions"]:
        if config.student:
            return _measure_confidence(questions, config, work)
        labelled = [item for item in train if item.question and not item.images]
        return linear_margins(questions, labelled=labelled)

    chosen = config.choose.choose(questions, measure_margins=measure_margins)
    return [rows[place] for place in chosen]


def _measure_confidence(
    questions: Sequence[Record], config: Config, work: Work
) -> Float[np.ndarray, " questions"]:
    """How sure the student is of its answer to each question; fully, where it is too long."""
    greedy = Answers(kind="answers")
    found = _ask_model("student", questions, write=greedy, config=config, work=work)
    return np.array(
        [
            1.0 if answer == UNANSWERED else answer.confidence_ratio
            for answers in found.answers
            for answer in answers
        ]
    )


def _finish(
    record: Record, result: Labelled | CallError | None, config: Config
) -> list[tuple[Record, Labelled | None]]:
    """A training record as it goes on; nothing where it is left out."""
    if isinstance(result, Labelled):
        return _list_records(result)
    is_left_out = isinstance(result, CallError) and config.failed == "leave_out"
    return [] if is_left_out else [(record, None)]


def _list_records(result: Labelled) -> list[tuple[Record, Labelled | None]]:
    """The records of one answered question: what is taken, and further samples."""
    return [(result.record, result), *((record, None) for record in result.others)]


def _describe_agreement(
    results: Sequence[Labelled | CallError], *, write: LabelForm
) -> dict[str, object]:
    """What the metrics say of several samples of one question."""
    if not write.is_measured_by_agreement:
        return {}
    ratios = [item.agreement_ratio for item in results if not isinstance(item, CallError)]
    ratios += [item.agreement_ratio for item in results if isinstance(item, DisagreementError)]
    num_records = sum(1 + len(item.others) for item in results if isinstance(item, Labelled))
    return {"answers_kept": num_records, **_quantiles("agreement", ratios)}


def _quantiles(name: str, values: Sequence[float]) -> dict[str, object]:
    if not values:
        return {}
    found = zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    return {f"{name}_quantile_{ratio * 100:.0f}": float(value) for ratio, value in found}


def _ask_teacher(questions: Sequence[Record], config: Config, work: Work) -> LabelOutcomes:
    """The answers of a checkpoint or bundle, those that it is sure of."""
    write = config.write.folder_answers
    assert write is not None
    found = _ask_model("teacher", questions, write=write, config=config, work=work)
    results = [
        take_answer(
            record,
            answers,
            write=write,
            max_new_tokens=config.max_new_tokens,
            min_confidence_ratio=config.min_confidence_ratio,
        )
        for record, answers in zip(questions, found.answers, strict=True)
    ]
    _check_failures(
        _failures(questions, results),
        num_asked=len(questions),
        config=config,
        kept_in=found.kept_in,
    )
    ratios = [answer.confidence_ratio for answers in found.answers for answer in answers]
    metrics = {**_quantiles("confidence", ratios), "num_threads": found.num_threads}
    return LabelOutcomes(results, metrics)


def _ask_model(
    field: Literal["teacher", "student"],
    questions: Sequence[Record],
    *,
    write: Answers,
    config: Config,
    work: Work,
) -> FolderAnswers:
    """What the model that the field names answers."""
    return ask_folder(
        questions,
        model=work.one(field),
        write=write,
        system=config.system,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        num_threads=config.num_threads,
        precision=config.precision,
        num_processes=config.num_processes,
        state_folder=work.persistent_dir,
        title=work.name if field == "teacher" else f"{work.name}: {field}",
    )


def _ask_server(
    questions: Sequence[Record], config: Config, work: Work, corpus: Corpus
) -> LabelOutcomes:
    """The answers of a model behind a server."""
    assert config.endpoint is not None
    calls = work.persistent_dir / "calls.jsonl"
    found = ask_server(
        questions,
        settings=config.endpoint,
        write=config.write,
        system=config.system,
        max_new_tokens=config.max_new_tokens,
        score=_choose(config.write, corpus=corpus),
        tokenizer_path=corpus.tokenizer_path,
        calls=calls,
        title=work.name,
    )
    _check_failures(
        _failures(questions, found.results),
        num_asked=len(questions),
        config=config,
        kept_in=calls,
    )
    return LabelOutcomes(found.results, found.metrics, found.labels)


def _choose(write: LabelForm, *, corpus: Corpus) -> ScoreAnswers:
    """How answers are compared."""
    weights = write.reward_weights
    if not weights:
        return lambda texts, record: agreement_ratios(texts)
    answer_format = corpus.answer_format()
    check_domain(answer_format, weights=weights, path=corpus.folder)

    def score_answers(texts: Sequence[str], record: Record) -> list[float]:
        expected = record.answer
        samples = [
            AnswerSample(text, True, expected, entity_f1(text, expected=[expected]))
            for text in texts
        ]
        return [
            score(item, answer_format=answer_format, weights=weights)["reward"] for item in samples
        ]

    return score_answers


def _check_held_out(records: Sequence[Record], *, corpus: Corpus) -> None:
    """Raises: LeakError: a question of an evaluation would be sent."""
    held_out = [*corpus.records("validation"), *corpus.records("test"), *corpus.questions()]
    check_leaks(records, held_out=held_out)


def _failures(
    questions: Sequence[Record], results: Sequence[Labelled | CallError]
) -> list[tuple[str, CallError]]:
    """The questions that got no answer, by id, each with why."""
    pairs = zip(questions, results, strict=True)
    return [(record.id, item) for record, item in pairs if isinstance(item, CallError)]


def _count(failures: Sequence[tuple[str, CallError]]) -> dict[str, int]:
    return dict(Counter(error.reason for _, error in failures).most_common())


def _check_failures(
    failures: Sequence[tuple[str, CallError]], *, num_asked: int, config: Config, kept_in: Path
) -> None:
    """Raises: EndpointError: more records failed than may.

    What was left out by choice is no failure.
    """
    failures = [(id_, error) for id_, error in failures if error.is_fault]
    allowed = config.max_failed_ratio * num_asked
    if len(failures) <= allowed and len(failures) < num_asked:
        return
    id_, error = failures[0]
    raise EndpointError(
        f"{len(failures):,} of {num_asked:,} records got no usable answer, by reason: "
        f"{_count(failures)}; the first is {id_}: {error}. Mend that and run again, or "
        f"raise max_failed_ratio ({config.max_failed_ratio:g}); what was answered is kept in "
        f"{kept_in}"
    )


def _describe_teacher(config: Config) -> JsonObject:
    """What the corpus's card says of who answered."""
    if config.endpoint is None:
        return {"model": config.teacher, "kind": config.write.kind}
    return {
        "model": config.endpoint.model,
        "url": config.endpoint.url,
        "kind": config.write.kind,
    }
