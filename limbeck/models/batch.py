"""The batch: what data loading makes, models read and objectives score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORED = -100
"""Label of a position that carries no loss."""


class Images(NamedTuple):
    """The images of a batch, in the reading order of the image tokens."""

    pixels: Float[Tensor, "images channels height width"]
    rows: Int[Tensor, " images"]
    """Which sequence of the batch each belongs to, ascending."""

    def to(self, device: torch.device) -> "Images":
        """The images on a device."""
        return Images(self.pixels.to(device), self.rows.to(device))


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of tokens; a label is the token itself where it carries a loss."""

    input_ids: Int[Tensor, "batch tokens"]
    labels: Int[Tensor, "batch tokens"]
    record_ids: Int[Tensor, " records"]
    """Of each record, its line in the split's file, counted from 0: one for each row, or several
    where rows are packed. Of sampled answers, their number in the step."""
    tokens: Bool[Tensor, "batch tokens"]
    """False where padded."""
    images: Images | None = None
    """None where no sequence holds any, so that text costs what it costs without an encoder."""
    answers_from: Literal["dataset", "student"] = "dataset"
    """Whether records hold the answers, or the model in training wrote them a moment ago."""
    positions: Int[Tensor, "batch tokens"] | None = None
    """Of each token in its own record, where rows are packed; None where a row is one record."""

    @property
    def kept(self) -> Bool[Tensor, "batch tokens"]:
        """Positions whose next token carries a loss."""
        kept = torch.zeros_like(self.labels, dtype=torch.bool)
        kept[:, :-1] = self.labels[:, 1:] != IGNORED
        return kept

    @property
    def targets(self) -> Int[Tensor, " kept"]:
        """The next tokens at the kept positions, row by row."""
        return self.labels[:, 1:][self.kept[:, :-1]]

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself when it is there already."""
        if self.input_ids.device == device:
            return self
        return Batch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.record_ids.to(device),
            self.tokens.to(device),
            None if self.images is None else self.images.to(device),
            answers_from=self.answers_from,
            positions=None if self.positions is None else self.positions.to(device),
        )


def pad_rows(
    rows: Sequence[Int[np.ndarray, "..."]],
    *,
    starts: Sequence[int],
    pad: int,
    record_ids: Sequence[int],
) -> Batch:
    """Sequences as one right-padded batch, each learnt from its start on."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    tokens = np.zeros((len(rows), width), dtype=bool)
    for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[index, : len(row)] = row
        labels[index, start : len(row)] = row[start:]
        tokens[index, : len(row)] = True
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.tensor(record_ids, dtype=torch.int64),
        torch.from_numpy(tokens),
    )


def pack_rows(
    rows: Sequence[Int[np.ndarray, "..."]],
    *,
    starts: Sequence[int],
    pad: int,
    record_ids: Sequence[Sequence[int]],
) -> Batch:
    """Several sequences a row, one after the other.

    `record_ids` are those of each row; `rows` and `starts` are the records' in that order.
    Positions restart at each record, from which models derive where attention ends. The first token
    of a record follows nothing that could predict it, so it carries no loss. Padding continues the
    positions of the last record, which attends to none of it.
    """
    lengths = [len(row) for row in rows]
    ends = np.cumsum([len(members) for members in record_ids])[:-1]
    widths = [int(part.sum()) for part in np.split(np.asarray(lengths), ends)]
    shape = (len(record_ids), max(widths))
    ids = np.full(shape, pad, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    given = iter(zip(rows, starts, strict=True))
    for line, members in enumerate(record_ids):
        first = 0
        for _ in members:
            row, start = next(given)
            end, start = first + len(row), max(start, 1)
            ids[line, first:end] = row
            labels[line, first + start : end] = row[start:]
            positions[line, first:] = np.arange(shape[1] - first)
            first = end
    tokens = np.arange(shape[1]) < np.asarray(widths)[:, None]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.tensor([record for members in record_ids for record in members], dtype=torch.int64),
        torch.from_numpy(tokens),
        positions=torch.from_numpy(positions),
    )


def count_kept(batch: Batch) -> Int[Tensor, " records"]:
    """How many positions of each record are kept, in the order of `record_ids`."""
    if batch.positions is None:
        return batch.kept.sum(dim=1)
    owners = (batch.positions == 0).reshape(-1).cumsum(dim=0) - 1
    return torch.bincount(owners[batch.kept.reshape(-1)], minlength=len(batch.record_ids))


def find_records(batch: Batch) -> list[tuple[int, slice]]:
    """Row and tokens of each record, in the order of `record_ids`."""
    if batch.positions is None:
        return [(row, slice(None)) for row in range(len(batch.input_ids))]
    found = []
    for row, positions in enumerate(batch.positions.cpu()):
        starts = (positions == 0).nonzero().flatten().tolist()
        found += [
            (row, slice(start, end))
            for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)
        ]
    return found
