"""Batches of a corpus, by step: any step's batches can be made again, so a killed run goes on."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record, Split, read_records
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.image_loader import Pixels
from limbeck.data.loading.packing import pack_parts
from limbeck.data.loading.token_cache import TokenCache
from limbeck.data.loading.tokenized import AnswerField, RecordFlags
from limbeck.models.batch import IGNORED, Batch, pack_rows, pad_rows
from limbeck.models.vision.image_processing import ImageFormat

logger = logging.getLogger(__name__)

MAX_SPLIT_POINTS = 256

RecordIds = Int[np.ndarray, " records"]


class Batches:
    """The micro-batches of every optimizer step over one split of a corpus.

    A record's id is its line in the split's file, counted from 0.
    """

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
        self.config = config
        self.tokenizer = tokenizer
        self.pad = cast(int, tokenizer.pad_token_id)
        self.pixels = Pixels(corpus, image_format=image_format)
        self.path = corpus.records_path(split)
        self.split = TokenCache(corpus).load(
            split, tokenizer=tokenizer, image_format=image_format, answers=answers
        )
        self.record_ids = config.select_records(self.split.flags)
        """Those that are selected, ascending."""
        self._check()
        self.epoch: RecordIds = np.repeat(self.record_ids, self._count_repeats())
        """Those of one pass, each as often as it is shown."""
        self._lengths = np.minimum(self.split.lengths, config.max_length)
        self.answer_starts = np.minimum(self.split.answer_starts, self._lengths)
        """Tokens of each record of the split before its answer."""
        self.num_truncated = int((self.split.lengths > config.max_length)[self.record_ids].sum())
        """Selected records that lose their end, and with it the token that ends an answer."""
        if used == "records":
            self._check_truncated(split)

    def _check(self) -> None:
        """Refuse records that no batch could hold, and a selection that is empty."""
        chosen, split, config = self.record_ids, self.split, self.config
        if not len(chosen):
            raise DataError(
                f"no record is selected by select={config.select!r}, images={config.images!r}; "
                "prepare more data or select others",
                path=self.path,
            )
        num_with_images = int(split.flags.has_images[chosen].sum())
        if num_with_images and config.packing != "none":
            raise DataError(
                f"packing={config.packing!r} lays text into rows, {num_with_images} of "
                "the selected records have images; set packing: none, or images: without",
                path=self.path,
            )
        if num_with_images and self.pixels.image_format is None:
            raise DataError(
                f"{num_with_images} of the selected records have images, which the "
                "model cannot see; give it an encoder with an `extend` entry, or set "
                "batching.images: without",
                path=self.path,
            )
        for index in chosen[~split.has_answer[chosen]][:1].tolist():
            raise DataError(
                f"record {self._name(index)}: its answer is empty, so there is nothing to learn; "
                "remove the record from its source and make the corpus again",
                path=self.path,
            )
        without_answer = split.flags.has_images & (split.answer_starts > config.max_length)
        for index in chosen[without_answer[chosen]][:1].tolist():
            raise DataError(
                f"record {self._name(index)}: its images and its question are "
                f"{split.answer_starts[index]} tokens, max_length is {config.max_length}; raise it"
            )

    def _check_truncated(self, split: Split) -> None:
        """Warn of records that teach no end; refuse training records of which none has one.

        Held-out records are read after training, which must not be lost by then.
        """
        if not self.num_truncated:
            return
        longest = int(self.split.lengths[self.record_ids].max())
        found = (
            f"{self.path}: {self.num_truncated} of {len(self)} selected records are longer than "
            f"batching.max_length {self.config.max_length} (the longest has {longest} tokens) and "
            "are cut at their end, so they teach no model to end its answers"
        )
        if self.num_truncated == len(self) and split == "train" and self.config.select != "text":
            raise DataError(f"{found}; raise max_length, or leave long records out")
        logger.warning("%s", found)

    def _name(self, record_id: int) -> str:
        return next(
            record.id for line, record in enumerate(read_records(self.path)) if line == record_id
        )

    def _count_repeats(self) -> Int[np.ndarray, " records"]:
        """How often one pass shows each of the selected records."""
        sources = self.split.sources[self.record_ids]
        known = {self.split.source_names[place] for place in np.unique(sources)}
        if unknown := sorted(set(self.config.repeats) - known):
            raise DataError(
                f"repeats names sources {unknown}, the selected records come from {sorted(known)}",
                path=self.path,
            )
        times = [self.config.repeats.get(name, 1) for name in self.split.source_names]
        return np.asarray(times)[sources]

    def __len__(self) -> int:
        return len(self.record_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of one pass over the records."""
        return int(self._lengths[self.record_ids].sum())

    @property
    def has_images(self) -> bool:
        """Whether a selected record has images."""
        return bool(self.split.flags.has_images[self.record_ids].any())

    @property
    def records_per_step(self) -> int:
        """Records that one optimizer step sees."""
        return self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one optimizer step sees, in the mean."""
        return float(self._lengths[self.epoch].mean()) * self.records_per_step

    def count_tokens(self, steps: int) -> int:
        """Tokens that so many optimizer steps see, padding not counted."""
        passes, rest = divmod(steps * self.records_per_step, len(self.epoch))
        last = np.random.default_rng((self.config.seed, passes)).permutation(self.epoch)[:rest]
        return passes * int(self._lengths[self.epoch].sum()) + int(self._lengths[last].sum())

    def specialty(self, record_id: int) -> str:
        """The specialty of a record."""
        return self.split.specialty_names[self.split.specialties[record_id]]

    def source(self, record_id: int) -> str:
        """The source of a record."""
        return self.split.source_names[self.split.sources[record_id]]

    def lengths(self, record_ids: RecordIds) -> Int[np.ndarray, " records"]:
        """Tokens of each of the given records."""
        return self._lengths[record_ids]

    def tokens(self, record_id: int) -> Int[np.ndarray, " tokens"]:
        """The tokens of a record, at most `max_length`."""
        return self.split[record_id][: self.config.max_length]

    def prompt(self, record_id: int) -> list[int]:
        """The tokens of a record's question, up to where its answer starts."""
        return self.split[record_id][: self.answer_starts[record_id]].tolist()

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step, split or packed so that little of them is padding."""
        chosen = self.order(step)
        if self.config.packing == "full":
            parts = pack_parts(
                self.lengths(chosen), num_parts=self.config.gradient_accumulation_steps
            )
            return [self.pack([chosen[row].tolist() for row in rows]) for rows in parts]
        parts = split_by_length(chosen, lengths=self.lengths(chosen), config=self.config)
        return [self.batch(part) for part in parts]

    def order(self, step: int) -> RecordIds:
        """Records of a step: passes over all that is shown, each in an order of its own."""
        first = step * self.records_per_step
        wanted, found = self.records_per_step, []
        while wanted:
            epoch, start = divmod(first, len(self.epoch))
            generator = np.random.default_rng((self.config.seed, epoch))
            part = generator.permutation(self.epoch)[start : start + wanted]
            found.append(part)
            first, wanted = first + len(part), wanted - len(part)
        return np.concatenate(found)

    def take(self, max_records: int, *, max_tokens: int) -> Batch:
        """At most so many records and tokens, the first that training sees, each once, one a row.

        One record at least.
        """
        first = np.random.default_rng((self.config.seed, 0)).permutation(self.epoch)
        chosen = np.asarray(list(dict.fromkeys(first.tolist()))[:max_records])
        totals = self.lengths(chosen).cumsum()
        return self.batch(chosen[: max(1, int((totals <= max_tokens).sum()))].tolist())

    def sample(self, max_records: int) -> Iterator[Batch]:
        """At most so many records, drawn once, in batches of like length, one a row."""
        chosen = np.random.default_rng(self.config.seed).permutation(self.record_ids)[:max_records]
        by_length = chosen[np.argsort(self.lengths(chosen), kind="stable")]
        step = self.config.per_device_train_batch_size
        for first in range(0, len(by_length), step):
            yield self.batch(by_length[first : first + step].tolist())

    def each_once(self) -> Iterator[Batch]:
        """Every selected record once, in batches of like length."""
        by_length = self.record_ids[np.argsort(self.lengths(self.record_ids), kind="stable")]
        for first in range(0, len(self), self.config.per_device_train_batch_size):
            yield self.batch(
                by_length[first : first + self.config.per_device_train_batch_size].tolist()
            )

    def pack(self, rows: Sequence[Sequence[int]]) -> Batch:
        """One batch of packed rows, each of the given records."""
        members = [record_id for row in rows for record_id in row]
        return pack_rows(
            list(map(self.tokens, members)),
            starts=list(map(self._loss_start, members)),
            pad=self.pad,
            record_ids=rows,
        )

    def batch(self, record_ids: Sequence[int]) -> Batch:
        """One batch of the given records, one a row."""
        batch = pad_rows(
            list(map(self.tokens, record_ids)),
            starts=list(map(self._loss_start, record_ids)),
            pad=self.pad,
            record_ids=record_ids,
        )
        if self.pixels.image_format is None:
            return batch
        batch.labels[batch.input_ids == self.pixels.image_format.token_id] = IGNORED
        images = self.pixels.gather([self.split.images.get(index, ()) for index in record_ids])
        return dataclasses.replace(batch, images=images)

    def _loss_start(self, record_id: int) -> int:
        """The first token of a record that carries a loss."""
        return int(self.answer_starts[record_id]) if self.config.loss_on == "answer" else 0


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


def read_selected(
    corpus: Corpus, config: BatchingConfig, *, split: Split = "train"
) -> dict[int, Record]:
    """The records that the config selects, by their ids."""
    records = list(corpus.records(split))
    chosen = config.select_records(RecordFlags.of(records))
    return {index: records[index] for index in chosen.tolist()}


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
