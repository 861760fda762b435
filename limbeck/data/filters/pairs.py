"""The filters that free text passes: cleaning, length, duplicates, confidence.

Each takes records and gives back those that stay; the ledger counts the rest with its reason.
Records made from facts pass only the search for exact duplicates.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.leaks import LeakIndex, normalise
from limbeck.contracts.records import UNSCORED, Question, Record
from limbeck.data.filters.dedup import Exact, Near, NearConfig
from limbeck.data.filters.drop_log import Ledger
from limbeck.data.filters.normalization.zh import clean
from limbeck.data.filters.quality_classifier import QualityClassifier, ScorerConfig
from limbeck.env.progress import track


class LengthConfig(Config):
    """How long free texts may be, in characters after cleaning."""

    least_answer_chars: Annotated[int, Field(ge=1)] = 15
    most_answer_chars: Annotated[int, Field(ge=1)] = 200
    least_question_chars: Annotated[int, Field(ge=1)] = 2
    most_question_chars: Annotated[int, Field(ge=1)] = 400

    @model_validator(mode="after")
    def _check_order(self) -> "LengthConfig":
        if self.least_answer_chars > self.most_answer_chars:
            raise ValueError("least_answer_chars is above most_answer_chars: nothing could pass")
        if self.least_question_chars > self.most_question_chars:
            raise ValueError("least_question_chars is above most_question_chars")
        return self


def clean_record(record: Record) -> Record:
    """The record with every text in its one form, and its group made anew from them."""
    history = tuple(clean(text) for text in record.history)
    question = clean(record.question)
    return dataclasses.replace(
        record,
        question=question,
        answer=clean(record.answer),
        history=history,
        rejected=clean(record.rejected) if record.rejected else "",
        group=record.group if record.images else normalise(history[0] if history else question),
    )


def find_misfit(record: Record, config: LengthConfig) -> str:
    """Why a record is too short or too long, or ''."""
    for name, chars, least, most in (
        ("question", len(record.question), config.least_question_chars, config.most_question_chars),
        ("answer", len(record.answer), config.least_answer_chars, config.most_answer_chars),
    ):
        if chars < least:
            return f"{name}_too_short"
        if chars > most:
            return f"{name}_too_long"
    return ""


def drop_asked(
    records: Iterable[Record], questions: Iterable[Question], *, ledger: Ledger
) -> list[Record]:
    """The records whose question no evaluation asks in the same words, or about their image."""
    asked = LeakIndex(questions)
    kept = []
    for record in records:
        if asked.find(record):
            ledger.drop_record(record, reason="in_evaluation")
        else:
            kept.append(record)
    return kept


def drop_duplicates(
    records: Sequence[Record], *, free_text: set[str], config: NearConfig, ledger: Ledger
) -> list[Record]:
    """The records that say something for the first time; near ones are sought in free text.

    About different images the same words say something else.
    """
    exact, near = Exact(), Near(config)
    kept = []
    with track("near duplicates", total=len(records), unit="records") as advance:
        for record in records:
            texts = (*record.images, *record.history, record.question, record.answer)
            is_text = record.source in free_text and not record.images
            if first := exact.find(*texts, id=record.id):
                ledger.drop_record(record, reason="duplicate", detail=f"of {first}")
            elif is_text and (first := near.find("".join(texts), id=record.id)):
                ledger.drop_record(record, reason="near_duplicate", detail=f"of {first}")
            else:
                kept.append(record)
            advance(1)
    return kept


def drop_doubtful(
    records: Sequence[Record],
    *,
    scorer: QualityClassifier,
    config: ScorerConfig,
    threshold: float,
    ledger: Ledger,
    seed: int,
) -> list[Record]:
    """The records above the threshold, by their own confidence or else by the scorer's.

    The scorer judges text by text; where an image answers, it has nothing to say, and all pass.
    """
    records = [
        dataclasses.replace(record, confidence=1.0)
        if record.images and record.confidence == UNSCORED
        else record
        for record in records
    ]
    scorer.fit(records, config=config, threshold=threshold, seed=seed)
    unscored = [record for record in records if record.confidence == UNSCORED]
    scores = iter(scorer.score_all(unscored))
    kept = []
    for record in records:
        reason = "low_confidence"
        if record.confidence == UNSCORED:
            reason = "low_score"
            record = dataclasses.replace(record, confidence=round(next(scores), 4))
        if record.confidence > threshold:
            kept.append(record)
        else:
            shown = f"{record.confidence:.2f}: {record.question[:60]}"
            ledger.drop_record(record, reason=reason, detail=shown)
    return kept


def cap(
    records: Sequence[Record], *, most: Mapping[str, int], ledger: Ledger, seed: int
) -> list[Record]:
    """At most so many records of each source: those with the least hashes."""
    by_source: dict[str, list[Record]] = {}
    for record in records:
        by_source.setdefault(record.source, []).append(record)
    left_out: set[str] = set()
    for source, members in by_source.items():
        if len(members) > most[source]:
            order = sorted(members, key=lambda record: _hash(f"{seed}:{record.id}"))
            left_out.update(record.id for record in order[most[source] :])
    for record in records:
        if record.id in left_out:
            ledger.drop_record(record, reason="over_limit")
    return [record for record in records if record.id not in left_out]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
