"""Settings of teachers: how several are one, and how often a mixture of experts runs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.objectives.config import Needs

ConfidenceMeasure = Literal["entropy", "max_probability"]


class Teachers(Config):
    """How several teachers are one."""

    mix: Literal["weighted", "specialty", "confidence"] = "weighted"
    """By fixed weights, one teacher for each record, or by each one's confidence in each token."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """One for each teacher, in their order; equal where none is given."""
    by: Literal["specialty", "source"] = "specialty"
    """What of a record chooses its teacher, for `specialty`."""
    specialties: Mapping[str, str] = {}
    """The teacher of each specialty (or source), by its name in `teacher`."""
    otherwise: str = ""
    """The teacher of records that `specialties` does not name; where empty, these are refused."""
    confidence: ConfidenceMeasure = "entropy"
    """What a teacher's weight is multiplied by: 1 - entropy / ln V, or the likeliest token's p."""

    @model_validator(mode="after")
    def _check(self) -> "Teachers":
        chosen = bool(self.specialties or self.otherwise)
        if chosen != (self.mix == "specialty"):
            raise ValueError(
                "`specialties` and `otherwise` are for `mix: specialty`, which needs one of them; "
                f"found mix {self.mix!r} with {dict(self.specialties)!r} and {self.otherwise!r}"
            )
        if self.weights and self.mix == "specialty":
            raise ValueError("`weights` mix teachers, and `mix: specialty` chooses: remove them")
        return self


def check_teachers(teachers: Teachers, *, names: Sequence[str], needs: Needs | None) -> None:
    """Refuse settings that do not fit the teachers that an entry names, or its objective.

    Raises:
        ValueError: settings for several where there is one, a wrong count, an unknown name, or an
            objective that only one teacher can serve.
    """
    if len(set(names)) != len(names):
        raise ValueError(f"teacher: {list(names)} names one twice; give it a weight instead")
    if len(names) < 2 and teachers != Teachers():
        raise ValueError(
            f"`teachers` sets how several are mixed, `teacher` names {list(names)}: name more, or "
            "remove `teachers`"
        )
    if teachers.weights and len(teachers.weights) != len(names):
        raise ValueError(
            f"teachers.weights: {len(teachers.weights)} weights for {len(names)} teachers "
            f"{list(names)}; give one for each"
        )
    if len(names) > 1 and needs is not None:
        _check_needs(needs, mix=teachers.mix)
    chosen = {*teachers.specialties.values(), *filter(None, [teachers.otherwise])}
    if unknown := sorted(chosen - set(names)):
        raise ValueError(
            f"teachers: {unknown} are not among the teachers {list(names)}; name them in `teacher`"
        )


def _check_needs(needs: Needs, *, mix: str) -> None:
    reasons = {
        "reads a teacher's own tokens": needs.tokenizer == "own",
        "changes its temperature on the way": mix != "specialty" and needs.max_temperature > 0,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(
                f"teacher: several are given, and the objective {reason}, which only one can "
                "serve; name one, or change the objective"
            )


class RouterSampling(Config):
    """How often a live mixture of experts runs again, with sampled experts."""

    num_samples: Annotated[int, Field(ge=0)] = 0
    """Passes with sampled experts beside the router's own; all count alike. Each costs as much as
    the teacher itself; 0 leaves the teacher as it is."""
