"""Inner states matched: hidden states, attention maps or value relations of pairs of layers."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from limbeck.distillation.features.config import Matching
from limbeck.distillation.features.similarity import (
    average_heads,
    cka_distance,
    cosine_distance,
    map_kl,
    map_mse,
    scaled_mse,
)
from limbeck.models.attention_capture import Heads, attention_logs, relation_logs

SEED = 0
"""Of the fresh maps."""
HIDDEN = {"mse": scaled_mse, "cosine": cosine_distance, "cka": cka_distance}
MAPS = {"kl": map_kl, "mse": map_mse}


class Projections(nn.Module):
    """The distance of each pair; hidden states pass a learned map, dropped when training ends."""

    def __init__(self, pairs: Sequence[Matching], *, hidden: int, teacher_hidden: int) -> None:
        super().__init__()
        self.states = [pair for pair in pairs if pair.what == "hidden"]
        self.attended = [pair for pair in pairs if pair.what != "hidden"]
        # The same maps whatever was drawn before: a run that was killed starts from no other ones.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.maps = nn.ModuleList(
                nn.Identity()
                if pair.measure == "cka"
                else nn.Linear(hidden, teacher_hidden, bias=False)
                for pair in self.states
            )

    def forward(
        self,
        student: Sequence[Float[Tensor, "kept hidden"]],
        teacher: Sequence[Float[Tensor, "kept teacher_hidden"]],
        *,
        student_heads: Sequence[Heads] = (),
        teacher_heads: Sequence[Heads] = (),
        keep: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, ""]:
        """Weighted sum over pairs and tokens."""
        terms = [
            pair.weight * HIDDEN[pair.measure](student=project(ours), teacher=theirs)
            for pair, project, ours, theirs in zip(
                self.states, self.maps, student, teacher, strict=True
            )
        ]
        for pair, ours, theirs in zip(self.attended, student_heads, teacher_heads, strict=True):
            assert keep is not None
            terms.append(pair.weight * compare_heads(pair, ours, theirs, keep=keep))
        return torch.stack(terms).sum()


def compare_heads(
    pair: Matching, student: Heads, teacher: Heads, *, keep: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, ""]:
    """How far two layers' maps are apart, summed over kept queries.

    Where the numbers of attention heads differ, as many groups of consecutive heads as divide both
    are averaged on either side.
    """
    if pair.what == "values":
        logs = [
            relation_logs(heads, keep=keep, relation_heads=pair.relation_heads)
            for heads in (student, teacher)
        ]
    else:
        logs = [attention_logs(heads, keep=keep) for heads in (student, teacher)]
        shared = math.gcd(logs[0].shape[1], logs[1].shape[1])
        if logs[0].shape[1] != logs[1].shape[1]:
            logs = [average_heads(item, num_groups=shared) for item in logs]
    return MAPS[pair.measure](student_logs=logs[0], teacher_logs=logs[1])
