"""Settings of matching inner states."""

from typing import Literal, get_args

from pydantic import model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat, PositiveInt

HiddenMeasure = Literal["mse", "cosine", "cka"]
"""Distances of hidden states."""
MapMeasure = Literal["kl", "mse"]
"""Distances of attention maps and of relations between values."""


class Matching(Config):
    """What of which layers is drawn together; layers are counted from 1."""

    what: Literal["hidden", "attention", "values"] = "hidden"
    """Hidden states (the last layer's after the final norm), attention probabilities, or relations
    between values (MiniLM)."""
    measure: HiddenMeasure | MapMeasure = "mse"
    """`mse`, `cosine` and `cka` for hidden states, `kl` and `mse` for the other two."""
    layers: Literal["pair", "last", "uniform", "searched"] = "pair"
    """Two layers by number, the last ones, each student layer with one at its own relative depth,
    or each with the likest one by CKA before training, in order."""
    student_layer: NonNegativeInt = 0
    """0 where `layers` names a map."""
    teacher_layer: NonNegativeInt = 0
    """0 where `layers` names a map."""
    relation_heads: PositiveInt = 1
    """Of `what: values`: all values of a token side by side are divided into so many."""
    weight: PositiveFloat = 1.0
    """A named map's pairs share it evenly."""

    @model_validator(mode="after")
    def _check(self) -> "Matching":
        known = get_args(HiddenMeasure if self.what == "hidden" else MapMeasure)
        if self.measure not in known:
            raise ValueError(
                f"measure {self.measure!r} is not for {self.what!r}: use one of {', '.join(known)}"
            )
        numbers = (self.student_layer, self.teacher_layer)
        if self.layers == "pair" and 0 in numbers:
            raise ValueError(
                "a pair needs student_layer and teacher_layer, counted from 1; or name a map: "
                "`layers: uniform`, `last` or `searched`"
            )
        if self.layers != "pair" and any(numbers):
            raise ValueError(
                f"`layers: {self.layers}` finds the layers itself; remove student_layer and "
                "teacher_layer, or use `layers: pair`"
            )
        if self.relation_heads != 1 and self.what != "values":
            raise ValueError(f"relation_heads is for `what: values`, not {self.what!r}; remove it")
        return self
