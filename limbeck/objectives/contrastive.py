"""Aligning images with texts: every image against every distinct text of its micro-batch.

The pairwise sigmoid loss of SigLIP (Zhai et al. 2023, arXiv:2303.15343): a pair is judged by
itself, so several images may share a text.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from limbeck.models.batch import IGNORED, Batch
from limbeck.objectives.base import Forward, Loss, Objective
from limbeck.objectives.config import Contrastive

SEED = 0
"""Of the fresh map."""


def pairwise_sigmoid_loss(
    *,
    images: Float[Tensor, "images width"],
    texts: Float[Tensor, "texts width"],
    matches: Bool[Tensor, "images texts"],
    log_scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Sum over pairs of -log sigmoid(z (t x.y + b)), z = 1 where they match and -1 elsewhere.

    x and y are the embeddings at unit length, t = exp(log_scale). Swapping images and texts, and
    transposing the matches, changes nothing.
    """
    x = functional.normalize(images.float(), dim=-1)
    y = functional.normalize(texts.float(), dim=-1)
    logits = x @ y.T * log_scale.exp() + bias
    return -functional.logsigmoid(torch.where(matches, logits, -logits)).sum()


def distinct_texts(
    labels: Int[Tensor, "batch tokens"], *, pad: int
) -> tuple[Int[Tensor, "texts longest"], Int[Tensor, " texts"], Int[Tensor, " batch"]]:
    """The different answers of a batch as padded tokens, their lengths, and each record's."""
    places: dict[tuple[int, ...], int] = {}
    owners = [places.setdefault(tuple(row[row != IGNORED].tolist()), len(places)) for row in labels]
    lengths = torch.tensor([len(text) for text in places], device=labels.device)
    texts = [torch.tensor(text, dtype=torch.int64, device=labels.device) for text in places]
    tokens = pad_sequence(texts, batch_first=True, padding_value=pad)
    return tokens, lengths, torch.tensor(owners, device=labels.device)


class ContrastiveObjective(Objective):
    """Computes `Contrastive`; holds a map, a scale and a bias, which are dropped after training.

    A text is the mean of what the language model makes of its tokens; an image the mean of its
    own tokens, mapped there.
    """

    def __init__(self, config: Contrastive, *, hidden: int, layer: int, pad: int) -> None:
        super().__init__()
        self.layer = layer
        self.pad = pad
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.bias = nn.Parameter(torch.tensor(config.bias))
        # The same map whatever was drawn before: a run that was killed starts from no other one.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.map = nn.Linear(hidden, hidden, bias=False)

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of one micro-batch, counted in images; none without images."""
        if batch.images is None:
            return Loss(self.bias * 0.0, 0)
        tokens, lengths, owners = distinct_texts(batch.labels, pad=self.pad)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        own_rows = torch.arange(len(tokens), device=tokens.device)
        texts = Batch(tokens, tokens, own_rows, real, batch.images)
        output = forward(texts, keep=real, layers=(self.layer,))
        assert output.images is not None
        means = [part.mean(dim=0) for part in output.hidden[0].split(lengths.tolist())]
        owned = owners[batch.images.rows]
        matches = owned[:, None] == own_rows
        total = pairwise_sigmoid_loss(
            images=self.map(output.images),
            texts=torch.stack(means),
            matches=matches,
            log_scale=self.log_scale,
            bias=self.bias,
        )
        return Loss(total, len(owned), {"contrast": total.item()})
