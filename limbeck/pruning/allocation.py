"""How many groups each layer keeps, and which.

Every layer keeps equally many. Left out: widths that differ by layer; a transformers config holds
one number for all layers, so such a model would need code of ours to be loaded.
"""

import math
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from limbeck.contracts.errors import CheckpointError
from limbeck.models.structure import GroupKind, Groups

KeptGroups = Mapping[Groups, tuple[int, ...]]
"""The groups that stay, ascending, of every layer that is cut."""


def count_kept(num_groups: int, *, ratio: float, multiple: int, kind: GroupKind) -> int:
    """How many of a layer's groups stay: the multiple nearest to the share, at least one multiple.

    A tie keeps more. The share that is cut in the end may so differ from the one asked for.

    Raises:
        CheckpointError: rounding leaves nothing to cut.
    """
    assert 0 <= ratio < 1
    wanted = num_groups * (1 - ratio)
    # Rounded first: 10 * (1 - 0.2) / 8 must not fall below its tie by a rounding error.
    kept = max(1, math.floor(round(wanted / multiple, 9) + 0.5)) * multiple
    if ratio > 0 and kept >= num_groups:
        raise CheckpointError(
            f"a layer has {num_groups} {kind}; cutting {ratio:.3g} of them leaves {wanted:.4g}, "
            f"which rounds to {kept} at multiples of {multiple}, so nothing would be cut; cut a "
            "larger share or lower the multiple"
        )
    return min(kept, num_groups)


def pick_kept(scores: Float[Tensor, " groups"], *, num_kept: int) -> tuple[int, ...]:
    """The groups with the highest scores, ascending; of equal scores the first stay."""
    order = scores.argsort(descending=True, stable=True)
    return tuple(sorted(order[:num_kept].tolist()))
