"""How many groups each layer keeps, and which.

Every layer keeps equally many. Left out: widths that differ by layer; a transformers config holds
one number for all layers, so such a model would need code of ours to be loaded.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from limbeck.models.structure import Groups

KeptGroups = Mapping[Groups, tuple[int, ...]]
"""The groups that stay, ascending, of every layer that is cut."""


def pick_kept(scores: Float[Tensor, " groups"], *, num_kept: int) -> tuple[int, ...]:
    """The groups with the highest scores, ascending; of equal scores the first stay."""
    order = scores.argsort(descending=True, stable=True)
    return tuple(sorted(order[:num_kept].tolist()))
