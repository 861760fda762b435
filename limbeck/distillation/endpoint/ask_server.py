"""Questions to a server and back: the labelled records, and what the metrics say of the server.

Left out: which questions are asked, and how many may stay without an answer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Record
from limbeck.distillation.endpoint.call_log import CallLog
from limbeck.distillation.endpoint.client import CallError, Endpoint
from limbeck.distillation.endpoint.config import EndpointConfig
from limbeck.distillation.endpoint.labeler import Labeler, Labelled, ScoreAnswers, label_all
from limbeck.distillation.endpoint.token_alignment import TokenTable
from limbeck.distillation.label_forms.config import LabelForm
from limbeck.distillation.teachers.endpoint import LabelsManifest
from limbeck.env.progress import track
from limbeck.models.tokenizer_identity import identify
from limbeck.models.tokenizers import load_tokenizer


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
    write: LabelForm,
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
    if write.num_top_log_probs:
        manifest = LabelsManifest(
            model=settings.model,
            vocab=table.vocab,
            top=min(write.num_top_log_probs, table.vocab - 1),
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
