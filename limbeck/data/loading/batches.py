"""Batches of a corpus, by step: any step's batches can be made again, so a killed run goes on."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
from jaxtyping import Int
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record, read_records
from limbeck.data.loading.chat_template import render_records
from limbeck.data.loading.image_loader import Pixels
from limbeck.data.loading.packing import pack_parts
from limbeck.models.batch import IGNORED, Batch, pack_rows, pad_rows
from limbeck.models.vision.image_processing import ImageFormat

CHUNK_RECORDS = 4096
MOST_CUTS = 256


class BatchingConfig(Config):
    """Which records training sees, and how many at a time."""

    per_device_train_batch_size: Annotated[int, Field(gt=0)] = 32
    """Records of one micro-batch, on average."""
    gradient_accumulation_steps: Annotated[int, Field(gt=0)] = 4
    """Micro-batches whose gradients make one optimizer step; records of like length share one."""
    select: Literal["all", "questions", "text", "preferences"] = "questions"
    """Questions with answers, plain text, both, or questions with a rejected answer too."""
    images: Literal["all", "with", "without"] = "all"
    """Records with images, without, or both."""
    loss_on: Literal["answer", "all"] = "answer"
    """Tokens that carry a loss; an image's never do."""
    max_length: Annotated[int, Field(gt=1)] = 512
    """Longer records are cut at their end."""
    packing: Literal["none", "full"] = "none"
    """`full` lays several records into one row: next to no padding, whatever their lengths.
    Attention ends at each record, so the loss is the same. Text only."""
    repeats: Mapping[str, Annotated[int, Field(gt=0)]] = {}
    """How often one pass shows the records of a source, by its name; 1 where it is not named."""
    seed: int = 0
    """Order of the records."""


class Batches:
    """The micro-batches of every optimizer step over one split of a corpus."""

    def __init__(
        self,
        corpus: Path,
        *,
        tokenizer: PreTrainedTokenizerBase,
        config: BatchingConfig,
        split: Literal["train", "validation", "test"] = "train",
        image_format: ImageFormat | None = None,
        answers: Literal["answer", "rejected"] = "answer",
    ) -> None:
        """Batches of records with their answers, or with those that preferences reject."""
        self.config = config
        self.pad = tokenizer.pad_token_id
        self.pixels = Pixels(corpus, image_format=image_format)
        path = corpus / "records" / f"{split}.jsonl"
        records = list(read_records(path))
        self.rows = [row for row, record in enumerate(records) if is_selected(record, config)]
        if not self.rows:
            raise DataError(
                f"no record is selected by select={config.select!r}, images={config.images!r}; "
                "prepare more data or select others",
                path=path,
            )
        self.specialties = [records[row].specialty for row in self.rows]
        self.shown = self._repeat([records[row].source for row in self.rows], path)
        self.images = [records[row].images for row in self.rows]
        if config.packing != "none" and any(self.images):
            raise DataError(
                f"packing={config.packing!r} lays text into rows, {sum(map(bool, self.images))} of "
                "the selected records have images; set packing: none, or images: without",
                path=path,
            )
        if image_format is None and any(self.images):
            raise DataError(
                f"{sum(map(bool, self.images))} of the selected records have images, which the "
                "model cannot see; give it an encoder with an `extend` entry, or set "
                "batching.images: without",
                path=path,
            )
        shown = [records[row] for row in self.rows]
        if answers == "rejected":
            shown = [dataclasses.replace(record, answer=record.rejected) for record in shown]
        self._read(shown, tokenizer, path)

    def _repeat(self, sources: list[str], path: Path) -> np.ndarray:
        """Every record as often as one pass shows it."""
        unknown = set(self.config.repeats) - set(sources)
        if unknown:
            raise DataError(
                f"repeats names sources {sorted(unknown)}, the selected records come from "
                f"{sorted(set(sources))}",
                path=path,
            )
        times = [self.config.repeats.get(source, 1) for source in sources]
        return np.repeat(np.arange(len(sources)), times)

    def _read(self, records: list[Record], tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
        flat, ends, starts = [], [0], []
        for first in range(0, len(records), CHUNK_RECORDS):
            chunk = records[first : first + CHUNK_RECORDS]
            found = render_records(tokenizer, chunk, image_format=self.pixels.image_format)
            for item, record in zip(found, chunk, strict=True):
                if not record.answer.strip():
                    raise DataError(
                        f"record {record.id}: its answer is empty, so there is nothing to learn; "
                        "remove the record from its source and make the corpus again",
                        path=path,
                    )
                ids = item.input_ids[: self.config.max_length]
                if record.images and item.answer_start > len(ids):
                    raise DataError(
                        f"record {record.id}: its images and its question are "
                        f"{item.answer_start} tokens, max_length is {self.config.max_length}; "
                        "raise it"
                    )
                flat.append(np.asarray(ids, dtype=np.int32))
                ends.append(ends[-1] + len(ids))
                starts.append(min(item.answer_start, len(ids)))
        self.flat = np.concatenate(flat)
        self.ends = np.asarray(ends, dtype=np.int64)
        self.starts = np.asarray(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_tokens(self) -> int:
        """Tokens of one pass over the records."""
        return int(self.ends[-1])

    @property
    def records_per_step(self) -> int:
        """Records that one optimizer step sees."""
        return self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one optimizer step sees, in the mean."""
        lengths = self.ends[1:] - self.ends[:-1]
        return float(lengths[self.shown].mean()) * self.records_per_step

    def count_tokens(self, steps: int) -> int:
        """Tokens that so many optimizer steps see, padding not counted."""
        lengths = self.ends[1:] - self.ends[:-1]
        passes, rest = divmod(steps * self.records_per_step, len(self.shown))
        last = np.random.default_rng((self.config.seed, passes)).permutation(self.shown)[:rest]
        return passes * int(lengths[self.shown].sum()) + int(lengths[last].sum())

    def prompt(self, index: int) -> list[int]:
        """The tokens of a record's question, up to where its answer starts."""
        first = int(self.ends[index])
        return self.flat[first : first + int(self.starts[index])].tolist()

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step, cut or packed so that little of them is padding."""
        chosen = self.order(step)
        if self.config.packing == "full":
            parts = pack_parts(
                self.lengths(chosen), num_parts=self.config.gradient_accumulation_steps
            )
            return [self.pack([chosen[row].tolist() for row in rows]) for rows in parts]
        parts = part_by_length(chosen, lengths=self.lengths(chosen), config=self.config)
        return [self.batch(part) for part in parts]

    def lengths(self, chosen: Int[np.ndarray, " records"]) -> Int[np.ndarray, " records"]:
        """Tokens of each of the given records."""
        return self.ends[chosen + 1] - self.ends[chosen]

    def order(self, step: int) -> np.ndarray:
        """Records of a step: passes over all that is shown, each in an order of its own."""
        first = step * self.records_per_step
        wanted, found = self.records_per_step, []
        while wanted:
            epoch, start = divmod(first, len(self.shown))
            generator = np.random.default_rng((self.config.seed, epoch))
            part = generator.permutation(self.shown)[start : start + wanted]
            found.append(part)
            first, wanted = first + len(part), wanted - len(part)
        return np.concatenate(found)

    def draw(self, most: int, *, most_tokens: int) -> Batch:
        """At most so many records and tokens, the first that training sees, each once, one a row.

        One record at least.
        """
        first = np.random.default_rng((self.config.seed, 0)).permutation(self.shown)
        chosen = np.asarray(list(dict.fromkeys(first.tolist()))[:most])
        totals = (self.ends[chosen + 1] - self.ends[chosen]).cumsum()
        return self.batch(chosen[: max(1, int((totals <= most_tokens).sum()))].tolist())

    def in_turn(self) -> Iterator[Batch]:
        """Every record once, in batches of like length."""
        by_length = np.argsort(self.ends[1:] - self.ends[:-1], kind="stable")
        for first in range(0, len(self), self.config.per_device_train_batch_size):
            yield self.batch(
                by_length[first : first + self.config.per_device_train_batch_size].tolist()
            )

    def pack(self, rows: list[list[int]]) -> Batch:
        """One batch of packed rows, each of the given records."""
        members = [index for row in rows for index in row]
        on_answer = self.config.loss_on == "answer"
        return pack_rows(
            [self.flat[self.ends[index] : self.ends[index + 1]] for index in members],
            starts=[int(self.starts[index]) if on_answer else 0 for index in members],
            pad=cast(int, self.pad),
            places=rows,
        )

    def batch(self, indices: list[int]) -> Batch:
        """One batch of the given records; `rows` are these indices."""
        on_answer = self.config.loss_on == "answer"
        batch = pad_rows(
            [self.flat[self.ends[index] : self.ends[index + 1]] for index in indices],
            starts=[int(self.starts[index]) if on_answer else 0 for index in indices],
            pad=cast(int, self.pad),
            places=indices,
        )
        if self.pixels.image_format is None:
            return batch
        batch.labels[batch.input_ids == self.pixels.image_format.token_id] = IGNORED
        images = self.pixels.gather([self.images[index] for index in indices])
        return dataclasses.replace(batch, images=images)


def held_out_batches(
    corpus: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: BatchingConfig,
    image_format: ImageFormat | None = None,
) -> Iterator[Batch]:
    """The validation records that the config selects, each once; nothing where there is none."""
    held_out = open_held_out(corpus, tokenizer=tokenizer, config=config, image_format=image_format)
    if held_out is not None:
        yield from held_out.in_turn()


def open_held_out(
    corpus: Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: BatchingConfig,
    image_format: ImageFormat | None = None,
) -> Batches | None:
    """Batches of the validation records that the config selects; None where there is none."""
    records = read_records(corpus / "records" / "validation.jsonl")
    if not any(is_selected(record, config) for record in records):
        return None
    return Batches(
        corpus,
        tokenizer=tokenizer,
        config=config.replace(repeats={}),
        split="validation",
        image_format=image_format,
    )


def part_by_length(
    chosen: Int[np.ndarray, " records"],
    *,
    lengths: Int[np.ndarray, " records"],
    config: BatchingConfig,
) -> list[list[int]]:
    """The records of a step's micro-batches, of like length in each."""
    by_length = np.argsort(lengths, kind="stable")
    cuts = cut_by_length(
        lengths[by_length],
        num_parts=config.gradient_accumulation_steps,
        most_tokens=config.per_device_train_batch_size * int(lengths.max()),
    )
    return [part.tolist() for part in np.split(chosen[by_length], cuts)]


def cut_by_length(
    lengths: Int[np.ndarray, " records"], *, num_parts: int, most_tokens: int
) -> list[int]:
    """Where to cut ascending lengths into parts so that the padded tokens are fewest.

    One long record among many short ones then gets a part of its own instead of widening all. No
    part holds more than `most_tokens`, padding included, so memory stays that of even parts. By
    dynamic programming over at most `MOST_CUTS` places to cut.
    """
    count = len(lengths)
    even = np.linspace(0, count, min(num_parts, count) + 1)
    places = np.linspace(0, count, min(count, MOST_CUTS) + 1)
    places = np.unique(np.concatenate([places, even]).astype(np.int64))
    widths = np.concatenate([[0], lengths[places[1:] - 1]])
    padded = (places[None, :] - places[:, None]) * widths[None, :]
    allowed = (padded > 0) & (padded <= most_tokens)
    cost = np.where(allowed, padded, np.inf)
    best = np.where(places == 0, 0.0, np.inf)
    starts = []
    for _ in range(min(num_parts, count)):
        total = best[:, None] + cost
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    end, cuts = len(places) - 1, []
    for start in reversed(starts):
        end = int(start[end])
        cuts.append(int(places[end]))
    return sorted(cuts)[1:]


def is_selected(record: Record, config: BatchingConfig) -> bool:
    """Whether training on such batches sees the record."""
    if config.images != "all" and bool(record.images) != (config.images == "with"):
        return False
    if config.select == "all":
        return True
    if config.select == "preferences":
        return bool(record.question) and bool(record.rejected)
    return bool(record.question) == (config.select == "questions")


def read_selected(corpus: Path, config: BatchingConfig) -> list[Record]:
    """The training records that the config selects, in the order that a batch's `rows` count."""
    records = read_records(corpus / "records" / "train.jsonl")
    return [record for record in records if is_selected(record, config)]
