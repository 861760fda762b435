"""Corpus and teacher to a corpus whose training answers are the teacher's.

Only training questions are asked.
"""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limbeck.contracts.answerer import Answer
from limbeck.contracts.artifacts import MANIFEST, Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, EndpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Record, write_jsonl
from limbeck.distillation.agreement import agreement_ratios
from limbeck.distillation.endpoint.ask_server import Write, ask_server, describe
from limbeck.distillation.endpoint.client import CallError
from limbeck.distillation.endpoint.config import Preferences
from limbeck.distillation.endpoint.labeler import Labelled, ScoreAnswers, replace_answer
from limbeck.distillation.local_labels import UNANSWERED, answer_questions
from limbeck.distillation.teachers.endpoint import LabelsManifest, write_labels
from limbeck.env.progress import track
from limbeck.evaluation.metrics import entity_f1
from limbeck.evaluation.report.without_teacher import LABELS_KEPT
from limbeck.reinforcement.rewards import AnswerSample, check_domain, score
from limbeck.runtimes import open_answerer
from limbeck.stages.config.label import Config

SHOWN_CHARS = 60
UNSURE = "unsure"
"""Why an answer is not taken that its teacher gives too little chance: no fault of the run."""


@dataclass(frozen=True)
class Outcome:
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
    questions = [asked[row] for row in rows]
    if not questions:
        raise DataError(
            "no training record is a question without images, so there is nothing to label; "
            "prepare others",
            path=corpus.records_path("train"),
        )
    if config.endpoint is None:
        outcome = _ask_folder(questions, config, work)
    else:
        outcome = _ask_server(questions, config, work, corpus)
    results = dict(zip(rows, outcome.results, strict=True))
    failures = _failures(questions, outcome.results)
    if bare:
        # What got no answer stays without one.
        answered = {row: item for row, item in results.items() if isinstance(item, Labelled)}
        kept: list[tuple[Record, Labelled | None]] = [(record, None) for record in train]
        kept += [(item.record, item) for item in answered.values()]
        left = [record for row, record in enumerate(bare) if row not in answered]
    else:
        finished = (_finish(item, results.get(row), config) for row, item in enumerate(train))
        kept, left = [item for item in finished if item is not None], []
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
        "not_asked": len(asked) - len(questions),
        LABELS_KEPT: len(train) if bare else 0,
        **outcome.metrics,
        **describe([item for item in labelled if item is not None], write=config.write),
    }


def _finish(
    record: Record, result: Labelled | CallError | None, config: Config
) -> tuple[Record, Labelled | None] | None:
    """A training record as it goes on; None where it is left out."""
    if isinstance(result, Labelled):
        return result.record, result
    is_left_out = isinstance(result, CallError) and config.failed == "leave_out"
    return None if is_left_out else (record, None)


def _ask_folder(questions: Sequence[Record], config: Config, work: Work) -> Outcome:
    """The answers of a checkpoint or bundle, those that it is sure of."""
    teacher = work.one("teacher")
    answerer = open_answerer(
        teacher.path, num_threads=config.num_threads, num_rows=config.batch_size
    )
    state = work.persistent_dir / f"answers.{teacher.manifest.content_hash[:12]}.jsonl"
    with track(work.name, total=len(questions), unit="question") as advance:
        found = answer_questions(
            answerer,
            questions,
            system=config.system,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            state=state,
            advance=advance,
        )
    results = [
        _take(record, answer, config=config)
        for record, answer in zip(questions, found, strict=True)
    ]
    _check_failures(
        [item for item in _failures(questions, results) if item[1].reason != UNSURE],
        num_asked=len(questions),
        config=config,
        kept_in=state,
    )
    ratios = np.array([answer.confidence_ratio for answer in found])
    quantiles = dict(zip(("10", "50", "90"), np.quantile(ratios, (0.1, 0.5, 0.9)), strict=True))
    metrics = {f"confidence_quantile_{name}": float(value) for name, value in quantiles.items()}
    return Outcome(results, {**metrics, "num_threads": answerer.num_threads()})


def _take(record: Record, answer: Answer, *, config: Config) -> Labelled | CallError:
    if answer == UNANSWERED:
        return CallError("too_long", "the question is longer than the teacher reads")
    if answer.num_tokens >= config.max_new_tokens:
        return CallError("cut_off", f"has not ended after {answer.num_tokens} tokens")
    if not answer.text.strip():
        return CallError("empty", "ends at once")
    if answer.confidence_ratio < config.min_confidence_ratio:
        return CallError(UNSURE, f"{answer.confidence_ratio:.3f}: {answer.text[:SHOWN_CHARS]}")
    found = replace_answer(record, answer.text.strip())
    return Labelled(dataclasses.replace(found, confidence=round(answer.confidence_ratio, 4)))


def _ask_server(questions: Sequence[Record], config: Config, work: Work, corpus: Corpus) -> Outcome:
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
    return Outcome(found.results, found.metrics, found.labels)


def _choose(write: Write, *, corpus: Corpus) -> ScoreAnswers:
    """How answers are compared."""
    if not isinstance(write, Preferences) or write.better_by == "agreement":
        return lambda texts, record: agreement_ratios(texts)
    weights = write.better_by
    assert not isinstance(weights, str)
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
    """Raises: EndpointError: more records failed than may."""
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
