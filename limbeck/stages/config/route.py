"""Settings of the stage `route`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.fields import InnerRatio, NonNegativeInt, PositiveInt, PositiveRatio
from limbeck.contracts.stage import CorpusRef, ModelRef, StageConfig


class Config(StageConfig):
    """Fit which tier answers which question, from all tiers' drafts of validation questions."""

    make: ClassVar[ArtifactKind] = "router"
    shows_references: ClassVar[bool] = True
    stage: Literal["route"]
    tiers: Annotated[tuple[ModelRef, ...], Field(min_length=2)]
    """Models from the largest to the smallest, as the service's tiers stand."""
    corpus: CorpusRef
    """Its validation split is answered; nothing that any of the tiers trained on."""
    min_kept_ratio: PositiveRatio = 0.99
    """Of the largest tier's accuracy, that the routed answers are to keep."""
    max_error_ratio: InnerRatio = 0.1
    """How often, over many routers made in this way, the promise may fail all the same."""
    fit_ratio: InnerRatio = 0.5
    """Share of the groups of questions that the router is fitted on; the promise is tested on the
    others."""
    max_questions: PositiveInt = 4000
    """Drawn by a hash of their ids."""
    max_new_tokens: PositiveInt = 64
    batch_size: PositiveInt = 64
    num_threads: PositiveInt | Literal["auto"] = 1
    """CPU threads while answering; one gives the same answers whatever runs beside."""
    seed: NonNegativeInt = 0
    """Of the split, the folds and the order of the test."""

    @model_validator(mode="after")
    def _check_names(self) -> "Config":
        if len(set(self.tiers)) != len(self.tiers):
            raise ValueError(f"tiers {list(self.tiers)} name one model twice: remove one")
        return self

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.route import run

        return run(self, work=work)
