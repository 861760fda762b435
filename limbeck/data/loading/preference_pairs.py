"""Batches that pair worse answers with better ones."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.data.loading.batches import Batches, split_by_length
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.batch import IGNORED, Batch


class PreferenceBatches:
    """The micro-batches of every step: rows of better answers, then of worse ones in that order."""

    def __init__(
        self, corpus: Corpus, *, tokenizer: PreTrainedTokenizerBase, config: BatchingConfig
    ) -> None:
        chosen = config.replace(select="preferences", loss_on="answer")
        try:
            self.better = Batches(corpus, tokenizer=tokenizer, config=chosen)
        except DataError as error:
            raise DataError(
                f"no question has a rejected answer ({error}); give `knowledge` "
                "`preferences: plausible`, or your rows a column `rejected`"
            ) from None
        self.worse = Batches(corpus, tokenizer=tokenizer, config=chosen, answers="rejected")

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one optimizer step sees, in the mean."""
        return self.better.records.tokens_per_step + self.worse.records.tokens_per_step

    def count_tokens(self, steps: int) -> int:
        """Tokens that so many optimizer steps see, padding not counted."""
        return self.better.records.count_tokens(steps) + self.worse.records.count_tokens(steps)

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step; `per_device_train_batch_size` counts pairs."""
        chosen = self.better.records.order(step)
        lengths = np.maximum(
            self.better.records.lengths(chosen), self.worse.records.lengths(chosen)
        )
        parts = split_by_length(chosen, lengths=lengths, config=self.better.config)
        return [self._join(part) for part in parts]

    def _join(self, indices: list[int]) -> Batch:
        sides = (self.better.batch(indices), self.worse.batch(indices))
        width = max(side.input_ids.shape[1] for side in sides)

        def widen(values: torch.Tensor, *, fill: int) -> torch.Tensor:
            space = (0, width - values.shape[1])
            return torch.nn.functional.pad(values, space, value=fill)

        return Batch(
            torch.cat([widen(side.input_ids, fill=self.better.pad) for side in sides]),
            torch.cat([widen(side.labels, fill=IGNORED) for side in sides]),
            torch.cat([side.record_ids for side in sides]),
            torch.cat([widen(side.tokens, fill=False) for side in sides]),
        )
