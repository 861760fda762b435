"""Channels evened out before they are rounded, without a change of what the model computes.

A block of integers has one scale, so one large channel costs all others of its block their last
bits. Where a norm or a linear layer makes a channel, it is divided by a factor, and the layers that
read it multiply their columns by it (SmoothQuant: Xiao et al. 2023, arXiv:2211.10438, eq. 4). The
factor is s = rms(x)^a / rms(w)^(1 - a) over the channel's values and over its weights; the paper's
maxima depend on single tokens, and were worse in blocks (decision 0041).
"""

import logging
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.parity import compare_logits
from limbeck.models.batch import Batch
from limbeck.models.logit_parity import compute_logits
from limbeck.models.norms import scale_norm
from limbeck.models.observation import Squares, observe
from limbeck.models.smoothing.pairs import LayerPair, find_pairs

logger = logging.getLogger(__name__)

MAX_KL = 1e-4
"""Between the model before and after, in nats: float32 rounds, and a part that is read by something
else would change far more."""
MIN_SHARE = 0.01
"""Of the mean over channels: a smaller channel counts as so large."""


@torch.no_grad()
def smooth(
    model: PreTrainedModel,
    *,
    batches: Iterable[Batch],
    strength: float,
    input_ids: Int[Tensor, "prompts tokens"],
) -> int:
    """Even a model's channels out, in place; for how many of its pairs of layers.

    Activations are measured on the batches, and what the model answers on `input_ids`.

    0 where something else reads such channels, so that the model would answer differently: it
    stays as it was, and a warning says so.
    """
    training = model.training
    model.eval()
    before = compute_logits(model, input_ids=input_ids)
    pairs = find_pairs(model, input_ids=input_ids)
    squares = {pair.readers[0]: Squares() for pair in pairs}
    observe(model, observers=squares, batches=batches)
    changed: dict[str, Tensor] = {}
    num_smoothed = 0
    for pair in pairs:
        parameters = _parameters(model, pair)
        copies = {name: item.clone() for name, item in parameters.items() if name not in changed}
        found = squares[pair.readers[0]]
        factors = find_factors(
            torch.as_tensor(found.total / max(found.count, 1)),
            weights=[parameters[f"{name}.weight"] for name in pair.readers],
            pair=pair,
            strength=strength,
        )
        if _divide(model, pair, factors):
            changed |= copies
            num_smoothed += 1
    after = compute_logits(model, input_ids=input_ids)
    if not compare_logits([(before, after)]).mean_kl <= MAX_KL:
        logger.warning(
            "%s: its channels cannot be evened out before rounding, because other parts of it read "
            "them as well; it is rounded as it is",
            type(model).__name__,
        )
        for name, tensor in changed.items():
            model.get_parameter(name).copy_(tensor)
        num_smoothed = 0
    model.train(training)
    return num_smoothed


def find_factors(
    mean_square: Float[Tensor, " columns"],
    *,
    weights: Sequence[Float[Tensor, "_ columns"]],
    pair: LayerPair,
    strength: float,
) -> Float[Tensor, "runs channels"]:
    """What each channel of a pair is divided by; 1 where no channel is ever made, or ever read."""
    of_weights = torch.stack([item.float().square().mean(dim=0) for item in weights]).amax(dim=0)
    given, read = (
        _raise_least(item.unflatten(0, (pair.num_runs, pair.repeats, -1)).amax(dim=1).sqrt())
        for item in (mean_square, of_weights)
    )
    factors = given**strength / read ** (1 - strength)
    return torch.where((given > 0) & (read > 0), factors, 1.0)


def _raise_least(sizes: Float[Tensor, "runs channels"]) -> Float[Tensor, "runs channels"]:
    """What is all but never used may be used later, and must not stand out of its block then."""
    return sizes.clamp_min(float(sizes.mean()) * MIN_SHARE)


def _parameters(model: PreTrainedModel, pair: LayerPair) -> dict[str, nn.Parameter]:
    names = [f"{name}.weight" for name in pair.readers] + [rows.parameter for rows in pair.rows]
    if pair.norm:
        norm = model.get_submodule(pair.norm)
        names += [f"{pair.norm}.{name}" for name, _ in norm.named_parameters(recurse=False)]
    return {name: model.get_parameter(name) for name in names}


def _divide(
    model: PreTrainedModel, pair: LayerPair, factors: Float[Tensor, "runs channels"]
) -> bool:
    """Divide channels where they are made, and multiply them where they are read."""
    if pair.norm and not scale_norm(model.get_submodule(pair.norm), 1 / factors.flatten()):
        return False
    for rows in pair.rows:
        made = model.get_parameter(rows.parameter)[rows.start : rows.stop]
        made.div_(factors.flatten().view(-1, *[1] * (made.dim() - 1)))
    columns = factors[:, None].expand(-1, pair.repeats, -1).flatten()
    for name in pair.readers:
        model.get_parameter(f"{name}.weight").mul_(columns)
    return True
