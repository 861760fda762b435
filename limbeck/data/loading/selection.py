"""The records of a split that a config selects, tokenised, and the order in which steps take them.

Left out: tensors, and with them torch, so that a plan counts tokens without importing it.
"""

import logging
from typing import Literal, final

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record, Split, read_records
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.token_cache import TokenCache
from limbeck.data.loading.tokenized import AnswerField, RecordFlags
from limbeck.models.vision.image_processing import ImageFormat

logger = logging.getLogger(__name__)

RecordIds = Int[np.ndarray, " records"]


@final
class SelectedRecords:
    """What batches are made of. A record's id is its line in the split's file, counted from 0."""

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
        """Records with their answers, or with those that preferences reject.

        Where only prompts are used, answers may be cut off.

        Raises:
            DataError: no record is selected, or one cannot be learnt.
        """
        self.config = config
        self.path = corpus.records_path(split)
        self.split = TokenCache(corpus).load(
            split, tokenizer=tokenizer, image_format=image_format, answers=answers
        )
        self.ids = config.select_records(self.split.flags)
        """Those that are selected, ascending."""
        self._check(reads_images=image_format is not None)
        self.epoch: RecordIds = np.repeat(self.ids, self._count_repeats())
        """Those of one pass, each as often as it is shown."""
        self._lengths = np.minimum(self.split.lengths, config.max_length)
        self.answer_starts = np.minimum(self.split.answer_starts, self._lengths)
        """Tokens of each record of the split before its answer."""
        self.num_truncated = int((self.split.lengths > config.max_length)[self.ids].sum())
        """Selected records that lose their end, and with it the token that ends an answer."""
        if used == "records":
            self._check_truncated(split)

    def _check(self, *, reads_images: bool) -> None:
        """Refuse records that no batch could hold, and a selection that is empty."""
        chosen, split, config = self.ids, self.split, self.config
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
        if num_with_images and not reads_images:
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
        longest = int(self.split.lengths[self.ids].max())
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
        sources = self.split.sources[self.ids]
        known = {self.split.source_names[place] for place in np.unique(sources)}
        if unknown := sorted(set(self.config.repeats) - known):
            raise DataError(
                f"repeats names sources {unknown}, the selected records come from {sorted(known)}",
                path=self.path,
            )
        times = [self.config.repeats.get(name, 1) for name in self.split.source_names]
        return np.asarray(times)[sources]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """Tokens of one pass over the records."""
        return int(self._lengths[self.ids].sum())

    @property
    def has_images(self) -> bool:
        """Whether a selected record has images."""
        return bool(self.split.flags.has_images[self.ids].any())

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


def read_selected(
    corpus: Corpus, config: BatchingConfig, *, split: Split = "train"
) -> dict[int, Record]:
    """The records that the config selects, by their ids."""
    records = list(corpus.records(split))
    chosen = config.select_records(RecordFlags.of(records))
    return {index: records[index] for index in chosen.tolist()}
