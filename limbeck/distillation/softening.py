"""A teacher's distribution over all tokens, whatever form its targets have."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.models.targets import FullLogits, HiddenAndHead, ImportanceSampled, TeacherDistribution


def log_probabilities(
    said: TeacherDistribution, *, vocab: int, temperature: float, tail_temperature: float
) -> Float[Tensor, "kept vocab"]:
    """A teacher's distribution at a temperature.

    Of top or drawn tokens the mass of all others, known at `tail_temperature` alone, is spread
    evenly.
    """
    if isinstance(said, HiddenAndHead):
        said = said.whole()
    if isinstance(said, FullLogits):
        return (said.logits[:, :vocab].float() / temperature).log_softmax(dim=-1)
    if isinstance(said, ImportanceSampled):
        logs = _spread(said, vocab=vocab)
        return (logs * tail_temperature / temperature).log_softmax(dim=-1)
    others = max(1, vocab - said.ids.shape[1])
    each = (said.tail.float() - math.log(others)) * (tail_temperature / temperature)
    logits = each.unsqueeze(1).expand(-1, vocab).clone()
    logits.scatter_(1, said.ids, said.logits.float() / temperature)
    return torch.log_softmax(logits, dim=-1)


def _spread(said: ImportanceSampled, *, vocab: int) -> Float[Tensor, "kept vocab"]:
    """Log p at the temperature of drawing: exact where drawn, the rest of the mass even."""
    held = torch.where(said.weights > 0, said.logs.float(), -torch.inf)
    nothing = torch.full((len(held), vocab), -torch.inf, device=held.device)
    logs = nothing.scatter_reduce(1, said.ids, held, "amax")
    drawn = logs > -torch.inf
    rest = (1 - logs.exp().sum(dim=-1)).clamp(min=1e-9).log()
    others = (~drawn).sum(dim=-1).clamp(min=1).log()
    return torch.where(drawn, logs, (rest - others).unsqueeze(1))
