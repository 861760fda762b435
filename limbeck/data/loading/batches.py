"""Batches of a corpus, by step: any step's batches can be made again, so a killed run goes on."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Split
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.image_loader import Pixels
from limbeck.data.loading.packing import pack_parts
from limbeck.data.loading.selection import RecordIds, SelectedRecords
from limbeck.data.loading.token_cache import TokenCache
from limbeck.data.loading.tokenized import AnswerField
from limbeck.models.batch import IGNORED, Batch, pack_rows, pad_rows
from limbeck.models.vision.image_processing import ImageFormat

MAX_SPLIT_POINTS = 256


class Batches:
    """The micro-batches of every optimizer step over one split of a corpus."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: BatchingConfig,
        split: Split = "train",
        image_format: ImageFormat | None = None,
        answers: AnswerField = "answer",
        used: Literal["records", "prompts"] = "records",
    ) -> None:
        """Batches of records with their answers, or with those that preferences reject.

        Where only prompts are used, answers may be cut off.

        Raises:
            DataError: no record is selected, or one cannot be learnt.
        """
        self.corpus = corpus
        self.config = config
        self.tokenizer = tokenizer
        self.pad = cast(int, tokenizer.pad_token_id)
        self.pixels = Pixels(corpus, image_format=image_format)
        self.records = SelectedRecords(
            corpus,
            tokenizer=tokenizer,
            config=config,
            split=split,
            image_format=image_format,
            answers=answers,
            used=used,
        )

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step, split or packed so that little of them is padding."""
        chosen = self.records.order(step)
        if self.config.packing == "full":
            parts = pack_parts(
                self.records.lengths(chosen), num_parts=self.config.gradient_accumulation_steps
            )
            return [self.pack([chosen[row].tolist() for row in rows]) for rows in parts]
        parts = split_by_length(chosen, lengths=self.records.lengths(chosen), config=self.config)
        return [self.batch(part) for part in parts]

    def take(self, max_records: int, *, max_tokens: int) -> Batch:
        """At most so many records and tokens, the first that training sees, each once, one a row.

        One record at least.
        """
        first = np.random.default_rng((self.config.seed, 0)).permutation(self.records.epoch)
        chosen = np.asarray(list(dict.fromkeys(first.tolist()))[:max_records])
        totals = self.records.lengths(chosen).cumsum()
        return self.batch(chosen[: max(1, int((totals <= max_tokens).sum()))].tolist())

    def sample(self, max_records: int, *, skip: int = 0) -> Iterator[Batch]:
        """At most so many records, drawn once, in batches of like length, one a row.

        They come after `skip` others, which are those of a sample of as many.
        """
        drawn = np.random.default_rng(self.config.seed).permutation(self.records.ids)
        return self._by_length(drawn[skip : skip + max_records])

    def each_once(self) -> Iterator[Batch]:
        """Every selected record once, in batches of like length."""
        return self._by_length(self.records.ids)

    def _by_length(self, chosen: RecordIds) -> Iterator[Batch]:
        ordered = chosen[np.argsort(self.records.lengths(chosen), kind="stable")]
        step = self.config.per_device_train_batch_size
        for first in range(0, len(ordered), step):
            yield self.batch(ordered[first : first + step].tolist())

    def open_validation(self) -> "Batches | None":
        """Batches of the validation records that the config selects; None where there is none."""
        return open_validation(
            self.corpus,
            tokenizer=self.tokenizer,
            config=self.config,
            image_format=self.pixels.image_format,
        )

    def validation(self) -> Iterator[Batch]:
        """The validation records that the config selects, each once; nothing where none is."""
        found = self.open_validation()
        return iter(()) if found is None else found.each_once()

    def pack(self, rows: Sequence[Sequence[int]]) -> Batch:
        """One batch of packed rows, each of the given records."""
        members = [record_id for row in rows for record_id in row]
        return pack_rows(
            list(map(self.records.tokens, members)),
            starts=list(map(self._loss_start, members)),
            pad=self.pad,
            record_ids=rows,
        )

    def batch(self, record_ids: Sequence[int]) -> Batch:
        """One batch of the given records, one a row."""
        batch = pad_rows(
            list(map(self.records.tokens, record_ids)),
            starts=list(map(self._loss_start, record_ids)),
            pad=self.pad,
            record_ids=record_ids,
        )
        if self.pixels.image_format is None:
            return batch
        batch.labels[batch.input_ids == self.pixels.image_format.token_id] = IGNORED
        names = self.records.split.images
        images = self.pixels.gather([names.get(index, ()) for index in record_ids])
        return dataclasses.replace(batch, images=images)

    def _loss_start(self, record_id: int) -> int:
        """The first token of a record that carries a loss."""
        return int(self.records.answer_starts[record_id]) if self.config.loss_on == "answer" else 0


def validation_batches(
    corpus: Corpus,
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: BatchingConfig,
    image_format: ImageFormat | None = None,
) -> Iterator[Batch]:
    """The validation records that the config selects, each once; nothing where there is none."""
    found = open_validation(corpus, tokenizer=tokenizer, config=config, image_format=image_format)
    if found is not None:
        yield from found.each_once()


def open_validation(
    corpus: Corpus,
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: BatchingConfig,
    image_format: ImageFormat | None = None,
) -> Batches | None:
    """Batches of the validation records that the config selects; None where there is none."""
    found = TokenCache(corpus).load("validation", tokenizer=tokenizer, image_format=image_format)
    if not len(config.select_records(found.flags)):
        return None
    return Batches(
        corpus,
        tokenizer=tokenizer,
        config=config.replace(repeats={}),
        split="validation",
        image_format=image_format,
    )


def split_by_length(
    record_ids: RecordIds, *, lengths: Int[np.ndarray, " records"], config: BatchingConfig
) -> list[list[int]]:
    """The records of each of a step's micro-batches, of like length in each."""
    by_length = np.argsort(lengths, kind="stable")
    points = find_split_points(
        lengths[by_length],
        num_parts=config.gradient_accumulation_steps,
        max_padded_tokens=config.per_device_train_batch_size * int(lengths.max()),
    )
    return [part.tolist() for part in np.split(record_ids[by_length], points)]


def find_split_points(
    lengths: Int[np.ndarray, " records"], *, num_parts: int, max_padded_tokens: int
) -> list[int]:
    """Where to split ascending lengths into parts so that the padded tokens are fewest.

    One long record among many short ones then gets a part of its own instead of widening all. No
    part holds more than `max_padded_tokens`, so memory stays that of even parts. By dynamic
    programming over at most `MAX_SPLIT_POINTS` places to split at.
    """
    count = len(lengths)
    even = np.linspace(0, count, min(num_parts, count) + 1)
    places = np.linspace(0, count, min(count, MAX_SPLIT_POINTS) + 1)
    places = np.unique(np.concatenate([places, even]).astype(np.int64))
    widths = np.concatenate([[0], lengths[places[1:] - 1]])
    padded = (places[None, :] - places[:, None]) * widths[None, :]
    allowed = (padded > 0) & (padded <= max_padded_tokens)
    cost = np.where(allowed, padded, np.inf)
    best = np.where(places == 0, 0.0, np.inf)
    starts = []
    for _ in range(min(num_parts, count)):
        total = best[:, None] + cost
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    end, points = len(places) - 1, []
    for start in reversed(starts):
        end = int(start[end])
        points.append(int(places[end]))
    return sorted(points)[1:]
