"""Settings of pruning."""

from functools import partial
from typing import Annotated

from pydantic import AfterValidator

from limbeck.contracts.config import Config, resolve
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.fields import NonNegativeFloat, PositiveInt, PositiveRatio
from limbeck.contracts.registry import CRITERIA
from limbeck.models.config import GroupKind


def _check_name(name: str, *, kinds: frozenset[GroupKind]) -> str:
    try:
        found = resolve(CRITERIA, name, what="criterion")
    except UnknownNameError as error:
        raise ValueError(str(error)) from None
    if not kinds <= found.kinds:
        fit = [key for key in CRITERIA if kinds <= resolve(CRITERIA, key, what="criterion").kinds]
        raise ValueError(
            f"{name!r} scores {' and '.join(sorted(found.kinds))}, not "
            f"{' and '.join(sorted(kinds))}; use one of {', '.join(fit)}"
        )
    return name


_GROUPS: frozenset[GroupKind] = frozenset({"channels", "heads"})
_EXPERTS: frozenset[GroupKind] = frozenset({"experts"})
CriterionName = Annotated[str, AfterValidator(partial(_check_name, kinds=_GROUPS))]
"""The type of a field that names one of `limbeck list criteria` for channels and heads."""
ExpertCriterionName = Annotated[str, AfterValidator(partial(_check_name, kinds=_EXPERTS))]
"""The same for experts."""


class GroupLasso(Config):
    """How groups are brought to zero; lambda itself follows from the share to cut."""

    reach_ratio: PositiveRatio = 0.5
    """Share of the steps after which exactly the target number of groups is zero; the remaining
    steps train the others without pressure."""
    concavity: NonNegativeFloat = 8.0
    """0 is the plain group lasso, which presses on all groups alike; it suits training from
    scratch. A trained model's groups are nearly equal (a tenth apart), so it takes the others down
    as well: 20 % of the channels of a 1 M student in 80 steps moved its validation loss from 0.99
    to 2.73, against 0.84 at 8. Above 0 the pressure on a group is multiplied by (r / its root mean
    square) ** concavity, r being that of the largest group that is to go, as in reweighted lasso
    (Candes, Wakin and Boyd 2008, arXiv:0711.1612)."""


class Reconstruction(Config):
    """Fit the linear layers of the cut model to what those of the uncut one make."""

    num_records: PositiveInt = 128
    """Training records on which inputs and outputs are measured: more take longer and fit better. A
    layer is fitted where they hold at least as many tokens as it has columns."""
    damping_ratio: PositiveRatio = 0.1
    """Of the mean square of a layer's inputs, the share that is added to each: more of it stays
    closer to the weights as they were."""
