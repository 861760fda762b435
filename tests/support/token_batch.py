"""A batch of bare tokens, every one of which is learnt."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.models.batch import Batch, Images


def token_batch(
    ids: Int[Tensor, "batch tokens"],
    *,
    pixels: Float[Tensor, "batch channels height width"] | None = None,
) -> Batch:
    """The tokens, with one image a row where pixels are given."""
    rows = torch.arange(len(ids))
    images = None if pixels is None else Images(pixels, rows)
    return Batch(ids, ids, rows, torch.ones_like(ids, dtype=torch.bool), images)
