"""Preferences: plausible worse answers, and batches that pair them with the better ones."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question, Record
from limbeck.data.loading.batches import Batches, BatchingConfig, part_by_length
from limbeck.data.packs.fact_questions import Fact, draw
from limbeck.data.packs.schema import Pack
from limbeck.models.batch import IGNORED, Batch

REFUSED_RATIO = 0.25
"""Share of known facts whose worse answer is to say that one does not know."""
MOST_TRIES = 50


def add_rejected(
    items: Iterable[Record | Question], *, facts: Sequence[Fact], pack: Pack, seed: int
) -> Iterator[Record | Question]:
    """Records that ask one relation get a plausible worse answer; the rest comes as it is.

    What the pack holds is rejected in favour of another subject's items of the same relation, or of
    a refusal; a refusal that is due, in favour of some subject's items.
    """
    joiner, unknown = pack.description.joiner, pack.description.unknown_answer
    answers: dict[str, list[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, []).append(joiner.join(fact.items))
    for record in items:
        relation = record.group.split("|")[1] if record.group.count("|") == 2 else ""
        if isinstance(record, Question) or not record.question or relation not in answers:
            yield record
            continue
        chooser = draw(seed, "rejected", record.id)
        if record.answer != unknown and chooser.random() < REFUSED_RATIO:
            yield dataclasses.replace(record, rejected=unknown)
            continue
        for _ in range(MOST_TRIES):
            other = chooser.choice(answers[relation])
            if set(other.split(joiner)).isdisjoint(record.answer.split(joiner)):
                yield dataclasses.replace(record, rejected=other)
                break
        else:
            yield record


class Pairs:
    """The micro-batches of every step: rows of better answers, then of worse ones in that order."""

    def __init__(
        self, corpus: Path, *, tokenizer: PreTrainedTokenizerBase, config: BatchingConfig
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
        return self.better.tokens_per_step + self.worse.tokens_per_step

    def count_tokens(self, steps: int) -> int:
        """Tokens that so many optimizer steps see, padding not counted."""
        return self.better.count_tokens(steps) + self.worse.count_tokens(steps)

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of a step; `per_device_train_batch_size` counts pairs."""
        chosen = self.better.order(step)
        lengths = np.maximum(self.better.lengths(chosen), self.worse.lengths(chosen))
        parts = part_by_length(chosen, lengths=lengths, config=self.better.config)
        return [self._join(part) for part in parts]

    def _join(self, indices: list[int]) -> Batch:
        sides = (self.better.batch(indices), self.worse.batch(indices))
        width = max(side.input_ids.shape[1] for side in sides)

        def widen(values: torch.Tensor, *, fill: int) -> torch.Tensor:
            space = (0, width - values.shape[1])
            return torch.nn.functional.pad(values, space, value=fill)

        return Batch(
            torch.cat([widen(side.input_ids, fill=cast(int, self.better.pad)) for side in sides]),
            torch.cat([widen(side.labels, fill=IGNORED) for side in sides]),
            torch.cat([side.rows for side in sides]),
            torch.cat([widen(side.tokens, fill=False) for side in sides]),
        )
