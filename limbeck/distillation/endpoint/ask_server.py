"""Questions to a server and back: the labelled records, and what the metrics say of the server.

Left out: which questions are asked, and how many may stay without an answer.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Record
from limbeck.distillation.endpoint.call_log import CallLog
from limbeck.distillation.endpoint.client import CallError, Endpoint
from limbeck.distillation.endpoint.config import EndpointConfig, Logprobs, Preferences, Write
from limbeck.distillation.endpoint.labeler import Labeler, Labelled, ScoreAnswers, label_all
from limbeck.distillation.endpoint.token_alignment import TokenTable
from limbeck.distillation.teachers.endpoint import LabelsManifest
from limbeck.env.progress import track
from limbeck.models.checkpoints import load_tokenizer
from limbeck.models.tokenizer_identity import identify

MAX_LISTED_TOKENS = 20
"""Tokens without an equal that the metrics name."""


@dataclass(frozen=True)
class ServerAnswers:
    """What became of each question, and what the calls were."""

    results: Sequence[Labelled | CallError]
    metrics: JsonObject
    labels: LabelsManifest | None
    """Of the log-probabilities, where these were asked for."""


def ask_server(
    questions: Sequence[Record],
    *,
    settings: EndpointConfig,
    write: Write,
    system: str,
    max_new_tokens: int,
    score: ScoreAnswers,
    tokenizer_path: Path,
    calls: Path,
    title: str,
) -> ServerAnswers:
    """The answers of a model behind a server.

    `calls` is the file of the call log, `title` names the progress bar.

    Raises:
        EndpointError: no further call can succeed.
    """
    table = TokenTable(load_tokenizer(tokenizer_path))
    call_log = CallLog(calls)
    endpoint = Endpoint(settings, call_log=call_log)
    labeler = Labeler(
        endpoint,
        write=write,
        system=system,
        max_new_tokens=max_new_tokens,
        score=score,
        table=table,
    )
    results = asyncio.run(_label(questions, labeler=labeler, title=title))
    manifest = None
    if isinstance(write, Logprobs):
        manifest = LabelsManifest(
            model=settings.model,
            vocab=table.vocab,
            top=min(write.top, table.vocab - 1),
            tokenizer_hash=identify(table.tokenizer).fingerprint,
        )
    metrics = {
        "calls": endpoint.num_calls,
        "reused_calls": endpoint.num_reused,
        "cost": call_log.spent,
    }
    return ServerAnswers(results, metrics, manifest)


async def _label(
    questions: Sequence[Record], *, labeler: Labeler, title: str
) -> list[Labelled | CallError]:
    with track(title, total=len(questions), unit="record") as advance:
        return await label_all(questions, labeler=labeler, advance=advance)


def describe(items: Sequence[Labelled], *, write: Write) -> dict[str, object]:
    """The metrics of preferences or log-probabilities.

    Raises:
        DataError: no question has a pair, or too few tokens are aligned.
    """
    if isinstance(write, Preferences):
        return _describe_pairs(items)
    if isinstance(write, Logprobs):
        return _describe_logprobs(items, write=write)
    return {}


def _describe_pairs(items: Sequence[Labelled]) -> dict[str, object]:
    pairs = sum(bool(item.record.rejected) for item in items)
    if not pairs:
        raise DataError(
            "no question got two answers of which one is better; raise write.temperature or "
            "write.samples, or compare them by other rewards"
        )
    reasons = Counter(item.without_pair for item in items if item.without_pair)
    return {"pairs": pairs, "without_pair": dict(reasons)}


def _describe_logprobs(items: Sequence[Labelled], *, write: Logprobs) -> dict[str, object]:
    labels = [item.labels for item in items if item.labels is not None]
    missed: Counter[str] = sum((Counter(item.missed) for item in labels), Counter())
    num_returned = sum(item.num_returned for item in labels)
    num_aligned = sum(item.num_aligned for item in labels)
    if num_aligned < write.min_aligned_ratio * num_returned:
        raise DataError(
            f"{num_aligned:,} of {num_returned:,} tokens that the server returned are aligned with "
            "the corpus's tokenizer, candidates without an equal are "
            f"{dict(missed.most_common(5))}; lower write.min_aligned_ratio, or where the model is "
            "of another family, write answers instead"
        )
    return {
        "returned_places": num_returned,
        "aligned_places": num_aligned,
        "missed_candidates": missed.total(),
        "missed_tokens": dict(missed.most_common(MAX_LISTED_TOKENS)),
    }
