"""The batch that data makes, models read and objectives judge.

Left out: making batches (`limbeck.data.batching`) and a teacher's targets (`targets.py`).
"""

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
    """Right-padded token sequences; a label is the token itself where it carries a loss."""

    input_ids: Int[Tensor, "batch tokens"]
    labels: Int[Tensor, "batch tokens"]
    rows: Int[Tensor, " batch"]
    """Which training records these are."""
    tokens: Bool[Tensor, "batch tokens"]
    """False where padded."""
    images: Images | None = None
    """None where no sequence holds any, so that text costs what it costs without an encoder."""
    written: Literal["before", "student"] = "before"
    """Whether records hold the answers, or the model in training wrote them a moment ago."""

    @property
    def pixels(self) -> Float[Tensor, "images channels height width"] | None:
        """What a model is given besides the tokens."""
        return None if self.images is None else self.images.pixels

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself when it is there already."""
        if self.input_ids.device == device:
            return self
        return Batch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.rows.to(device),
            self.tokens.to(device),
            None if self.images is None else self.images.to(device),
            written=self.written,
        )


def pad_rows(
    rows: Sequence[Int[np.ndarray, "..."]],
    *,
    starts: Sequence[int],
    pad: int,
    places: Sequence[int],
) -> Batch:
    """Sequences as one batch, each learnt from its start on; `places` name their records."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    tokens = np.zeros((len(rows), width), dtype=bool)
    for index, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[index, : len(row)] = row
        labels[index, start : len(row)] = row[start:]
        tokens[index, : len(row)] = True
    return Batch(
        torch.from_numpy(ids), torch.from_numpy(labels),
        torch.tensor(places, dtype=torch.int64), torch.from_numpy(tokens),
    )  # fmt: skip


def random_tokens(
    *, vocab: int, num_prompts: int, num_tokens: int
) -> Int[Tensor, "prompts tokens"]:
    """Token sequences to try a model on, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab, (num_prompts, num_tokens), generator=generator)


def find_keep(labels: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens"]:
    """Positions whose next token carries a loss."""
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    return keep
