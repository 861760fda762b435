"""A split of a corpus as tokens, with what selects its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.records import Record, read_records
from limbeck.data.loading.chat_template import render_records
from limbeck.models.vision.image_processing import ImageFormat

CHUNK_RECORDS = 4096
"""Records that one call of the tokenizer reads."""
AnswerField = Literal["answer", "rejected"]


@dataclass(frozen=True)
class RecordFlags:
    """What tells kinds of records apart."""

    has_question: Bool[np.ndarray, " records"]
    has_rejected: Bool[np.ndarray, " records"]
    has_images: Bool[np.ndarray, " records"]

    @staticmethod
    def of(records: Sequence[Record]) -> "RecordFlags":
        """The flags of each record."""
        return RecordFlags(
            _flags([record.question for record in records]),
            _flags([record.rejected for record in records]),
            _flags([record.images for record in records]),
        )


@dataclass(frozen=True)
class TokenizedSplit:
    """The tokens of every record, whole, one after another in the order of their lines.

    Records that this rendering leaves out (images without a format of theirs, or no rejected
    answer) have no tokens.
    """

    tokens: Int[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " boundaries"]
    """Where each record begins, and at last where the last one ends."""
    answer_starts: Int[np.ndarray, " records"]
    """Tokens of each record before its answer."""
    flags: RecordFlags
    has_answer: Bool[np.ndarray, " records"]
    """Whether the answer is more than white space."""
    sources: Int[np.ndarray, " records"]
    """Place of each record's source in `source_names`."""
    source_names: tuple[str, ...]
    specialties: Int[np.ndarray, " records"]
    specialty_names: tuple[str, ...]
    images: Mapping[int, tuple[str, ...]]
    """Files of the records that have any, by record."""

    @property
    def lengths(self) -> Int[np.ndarray, " records"]:
        """Tokens of each record."""
        return np.diff(self.offsets)

    def __getitem__(self, record_id: int) -> Int[np.ndarray, " tokens"]:
        """The tokens of a record."""
        return self.tokens[self.offsets[record_id] : self.offsets[record_id + 1]]


def tokenize_split(
    path: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    image_format: ImageFormat | None = None,
    answers: AnswerField = "answer",
) -> TokenizedSplit:
    """The records of a file with their answers, or with those that preferences reject."""
    records = list(read_records(path))
    tokens: list[Int[np.ndarray, " tokens"]] = [np.zeros(0, dtype=np.int32)]
    lengths = np.zeros(len(records), dtype=np.int64)
    answer_starts = np.zeros(len(records), dtype=np.int64)
    shown = [
        index
        for index, record in enumerate(records)
        if (image_format is not None or not record.images)
        and (answers == "answer" or record.rejected)
    ]
    for first in range(0, len(shown), CHUNK_RECORDS):
        chunk = shown[first : first + CHUNK_RECORDS]
        rendered = render_records(
            tokenizer,
            [_with_answer(records[index], answers) for index in chunk],
            image_format=image_format,
        )
        for index, item in zip(chunk, rendered, strict=True):
            tokens.append(np.asarray(item.input_ids, dtype=np.int32))
            lengths[index], answer_starts[index] = len(item.input_ids), item.answer_start
    sources, source_names = _encode([record.source for record in records])
    specialties, specialty_names = _encode([record.specialty for record in records])
    return TokenizedSplit(
        tokens=np.concatenate(tokens),
        offsets=np.concatenate([[0], lengths.cumsum()]),
        answer_starts=answer_starts,
        flags=RecordFlags.of(records),
        has_answer=_flags([_with_answer(record, answers).answer.strip() for record in records]),
        sources=sources,
        source_names=source_names,
        specialties=specialties,
        specialty_names=specialty_names,
        images={index: item.images for index, item in enumerate(records) if item.images},
    )


def _with_answer(record: Record, answers: AnswerField) -> Record:
    return replace(record, answer=record.rejected) if answers == "rejected" else record


def _flags(values: Sequence[object]) -> Bool[np.ndarray, " records"]:
    return np.fromiter(map(bool, values), dtype=bool, count=len(values))


def _encode(names: Sequence[str]) -> tuple[Int[np.ndarray, " records"], tuple[str, ...]]:
    """Each name's place among the names in order of appearance, and these."""
    known = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.asarray([known[name] for name in names], dtype=np.int64), tuple(known)
