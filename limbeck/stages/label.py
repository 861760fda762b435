"""Corpus and a model behind a server to a corpus whose training answers are that model's.

Only training records are sent.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Sequence

from limbeck.contracts.artifacts import MANIFEST, Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, EndpointError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Record, write_jsonl
from limbeck.distillation.endpoint.call_log import CallLog
from limbeck.distillation.endpoint.client import CallError, Endpoint
from limbeck.distillation.endpoint.config import Answers, Logprobs, Preferences
from limbeck.distillation.endpoint.labeler import Labeler, Labelled, ScoreAnswers, label_all
from limbeck.distillation.endpoint.token_alignment import TokenTable
from limbeck.distillation.teachers.endpoint import LabelsManifest, write_labels
from limbeck.env.progress import track
from limbeck.evaluation.metrics import entity_f1
from limbeck.models.checkpoints import load_tokenizer
from limbeck.models.tokenizer_identity import identify
from limbeck.reinforcement.rewards import AnswerSample, check_domain, score
from limbeck.stages.config.label import Config

MAX_LISTED_TOKENS = 20
"""Tokens without an equal that the metrics name."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the corpus, and `failed.jsonl` with every record that got no answer."""
    corpus = Corpus(work.one("corpus").path)
    records = list(corpus.records("train"))
    _check_held_out(records, corpus=corpus)
    rows = [row for row, item in enumerate(records) if item.question and not item.images]
    questions = [records[row] for row in rows]
    if not questions:
        raise DataError(
            "no training record is a question without images, so there is nothing to label; "
            "prepare others",
            path=corpus.records_path("train"),
        )
    table = TokenTable(load_tokenizer(corpus.tokenizer_path))
    call_log = CallLog(work.persistent_dir / "calls.jsonl")
    endpoint, found = asyncio.run(_label(questions, config, work.name, corpus, call_log, table))
    results = dict(zip(rows, found, strict=True))
    failures = [
        (records[row].id, item) for row, item in results.items() if isinstance(item, CallError)
    ]
    _check_failures(failures, num_asked=len(questions), config=config, call_log=call_log)
    kept = [
        row
        for row in range(len(records))
        if config.failed == "keep" or not isinstance(results.get(row), CallError)
    ]
    labelled = [results.get(row) for row in kept]
    shutil.copytree(
        corpus.folder,
        work.folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(MANIFEST, corpus.page_path.name, "labels", "failed.jsonl"),
    )
    labelled_corpus = Corpus(work.folder)
    labelled_corpus.write_records(
        "train",
        [
            item.record if isinstance(item, Labelled) else records[row]
            for row, item in zip(kept, labelled, strict=True)
        ],
    )
    write_jsonl(
        work.folder / "failed.jsonl",
        [{"id": id_, "reason": error.reason, "detail": error.detail} for id_, error in failures],
    )
    metrics = {
        "asked": len(questions),
        "labelled": len(questions) - len(failures),
        "failed": _count(failures),
        "not_asked": len(records) - len(questions),
        "calls": endpoint.num_calls,
        "reused_calls": endpoint.num_reused,
        "cost": call_log.spent,
        **_describe(labelled, config),
    }
    if isinstance(config.write, Logprobs):
        manifest = LabelsManifest(
            model=config.endpoint.model,
            vocab=table.vocab,
            top=min(config.write.top, table.vocab - 1),
            tokenizer_hash=identify(table.tokenizer).fingerprint,
        )
        write_labels(
            work.folder,
            [item.labels if isinstance(item, Labelled) else None for item in labelled],
            manifest=manifest,
        )
    _note_on_card(labelled_corpus, config)
    return metrics


async def _label(
    questions: Sequence[Record],
    config: Config,
    title: str,
    corpus: Corpus,
    call_log: CallLog,
    table: TokenTable,
) -> tuple[Endpoint, list[Labelled | CallError]]:
    endpoint = Endpoint(config.endpoint, call_log=call_log)
    labeler = Labeler(
        endpoint,
        write=config.write,
        system=config.system,
        max_new_tokens=config.max_new_tokens,
        score=_choose(config.write, corpus=corpus),
        table=table,
    )
    with track(title, total=len(questions), unit="record") as advance:
        return endpoint, await label_all(questions, labeler=labeler, advance=advance)


def _choose(write: Answers | Preferences | Logprobs, *, corpus: Corpus) -> ScoreAnswers:
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


def agreement_ratios(texts: Sequence[str]) -> list[float]:
    """Each answer's mean entity F1 with all others.

    What a model answers more often is more often right (self-consistency, Wang et al. 2022,
    arXiv:2203.11171).
    """
    return [
        sum(
            entity_f1(text, expected=[other]) for place, other in enumerate(texts) if place != index
        )
        / (len(texts) - 1)
        for index, text in enumerate(texts)
    ]


def _check_held_out(records: Sequence[Record], *, corpus: Corpus) -> None:
    """Raises: LeakError: a question of an evaluation would be sent."""
    held_out = [*corpus.records("validation"), *corpus.records("test"), *corpus.questions()]
    check_leaks(records, held_out=held_out)


def _count(failures: Sequence[tuple[str, CallError]]) -> dict[str, int]:
    return dict(Counter(error.reason for _, error in failures).most_common())


def _check_failures(
    failures: Sequence[tuple[str, CallError]], *, num_asked: int, config: Config, call_log: CallLog
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
        f"{call_log.path}"
    )


def _describe(labelled: Sequence[Labelled | CallError | None], config: Config) -> dict[str, object]:
    """The metrics of preferences or log-probabilities."""
    items = [item for item in labelled if isinstance(item, Labelled)]
    if isinstance(config.write, Preferences):
        pairs = sum(bool(item.record.rejected) for item in items)
        if not pairs:
            raise DataError(
                "no question got two answers of which one is better; raise write.temperature or "
                "write.samples, or compare them by other rewards"
            )
        reasons = Counter(item.without_pair for item in items if item.without_pair)
        return {"pairs": pairs, "without_pair": dict(reasons)}
    if not isinstance(config.write, Logprobs):
        return {}
    labels = [item.labels for item in items if item.labels is not None]
    missed: Counter[str] = sum((Counter(item.missed) for item in labels), Counter())
    num_returned, num_aligned = (
        sum(item.num_returned for item in labels),
        sum(item.num_aligned for item in labels),
    )
    if num_aligned < config.write.min_aligned_ratio * num_returned:
        raise DataError(
            f"{num_aligned:,} of {num_returned:,} tokens that the server returned are aligned with "
            "the corpus's tokenizer, candidates without an equal are "
            f"{dict(missed.most_common(5))}; lower write.min_aligned_ratio, or where the model is "
            "of another family, write answers instead"
        )
    return {
        "told_places": num_returned,
        "aligned_places": num_aligned,
        "missed_candidates": missed.total(),
        "missed_tokens": dict(missed.most_common(MAX_LISTED_TOKENS)),
    }


def _note_on_card(corpus: Corpus, config: Config) -> None:
    """Put on the corpus's card which model answered."""
    labelled_by = {
        "model": config.endpoint.model,
        "url": config.endpoint.url,
        "kind": config.write.kind,
    }
    corpus.add_to_card("labelled_by", labelled_by)
