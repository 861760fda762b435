"""Settings of the stage `prune`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import RatioBelowOne
from limbeck.contracts.registry import OBJECTIVES
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig, TeacherRef
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.known_inputs import refuse_teachers, refuse_training
from limbeck.models.config import GroupKind
from limbeck.models.decoder_sizes import SizedConfig
from limbeck.models.known import KnownInputs, Refusal
from limbeck.objectives.config import NextToken, ObjectiveConfig
from limbeck.pruning.budget import Budget, fit_channels
from limbeck.pruning.config import CriterionName, ExpertCriterionName, GroupLasso, Reconstruction
from limbeck.pruning.shapes import count_groups, count_left
from limbeck.training.config import TrainingConfig


class Config(StageConfig):
    """Cut channels and heads, trained to zero before, experts, layers and width out of a model."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    processes: ClassVar[Literal["first", "all"]] = "all"
    stage: Literal["prune"]
    checkpoint: CheckpointRef
    corpus: CorpusRef
    teacher: TeacherRef = ""
    """A checkpoint or its signals, where the objective needs one."""
    channels_ratio: RatioBelowOne = 0.2
    """Share of each layer's feed-forward channels to cut."""
    budget: Budget | None = None
    """In place of `channels_ratio`: what the cut model has at most. Other shares are cut as given,
    and no more of the channels than it takes."""
    heads_ratio: RatioBelowOne = 0.0
    """Share of each layer's key-value heads to cut, each with the query heads it serves."""
    experts_ratio: RatioBelowOne = 0.0
    """Share of each sparse layer's routed experts to cut."""
    layers_ratio: RatioBelowOne = 0.0
    """Share of the layers to leave out: those that change their input least."""
    hidden_ratio: RatioBelowOne = 0.0
    """Share of the residual stream's channels to cut, in every layer the same."""
    multiple: Annotated[int, Field(gt=0)] = 8
    """Kept widths, of the feed-forward layers and of the residual stream, are the nearest multiple
    of this; runtimes prefer 128 or 256 at large widths. The metrics hold the share that was cut."""
    criterion: CriterionName = "contribution"
    """Scores channels and heads after training; those that training made zero score lowest."""
    experts_criterion: ExpertCriterionName = "reap"
    """Scores experts."""
    calibration_batches: Annotated[int, Field(gt=0)] = 8
    """Batches of the corpus on which activations are measured."""
    reconstruction: Reconstruction | None = Reconstruction()
    """How the weights that are left are fitted to the uncut model after all cuts; without it they
    stay as they were."""
    lasso: GroupLasso = GroupLasso()
    objective: Annotated[ObjectiveConfig, Choice(OBJECTIVES, what="objective")] = NextToken(
        kind="next_token"
    )
    """What training keeps up while groups shrink."""
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig | None = None
    """How channels and heads are trained to zero before the cut; without it the model is cut as it
    is, and needs healing all the more."""

    @model_validator(mode="after")
    def _check(self) -> "Config":
        self.objective.check_teacher(self.teacher)
        self.objective.check_packing(self.batching.packing)
        if self.training and self.training.early_stopping:
            raise ValueError(
                "training.early_stopping: the penalty that takes channels to zero grows until "
                "max_steps, so its end is not known from the validation loss; remove it, and set "
                "it on the `distill` entry that heals the cut model"
            )
        if self.budget and "channels_ratio" in self.model_fields_set:
            raise ValueError("the share of channels follows from `budget`: leave one of them out")
        if not any(self.ratios.values()) and not self.budget:
            raise ValueError(f"{', '.join(self.ratios)} are all 0: nothing would be cut")
        if self.training and not self.channels_ratio and not self.heads_ratio:
            raise ValueError(
                "training takes channels and heads to zero, and channels_ratio and heads_ratio are "
                "0: leave `training` out"
            )
        return self

    @property
    def ratios(self) -> dict[str, float]:
        """The shares to cut, by field."""
        return {
            "channels_ratio": self.channels_ratio,
            "heads_ratio": self.heads_ratio,
            "experts_ratio": self.experts_ratio,
            "layers_ratio": self.layers_ratio,
            "hidden_ratio": self.hidden_ratio,
        }

    def resolve_budget(self, config: SizedConfig) -> "Config":
        """The same with the share of channels that the budget takes of a model of this config.

        Raises:
            CheckpointError: no share brings it under the budget, or nothing has to go.
        """
        if self.budget is None:
            return self
        text = config.get_text_config()
        num_channels = count_groups(text)["channels"]
        num_kept = count_left(text, shares=self.other_shares)
        kept = fit_channels(config, budget=self.budget, multiple=self.multiple, num_kept=num_kept)
        needed = self.heads_ratio if self.training else num_kept
        if kept == num_channels and not needed:
            raise CheckpointError(
                f"the model has at most {self.budget.at_most:,.0f} {self.budget.unit} without a "
                "cut of channels: none would be cut; lower the budget, or give shares"
            )
        ratio = 1 - kept / num_channels
        return self.replace(budget=None, channels_ratio=ratio)

    @property
    def shares(self) -> dict[GroupKind, tuple[float, int]]:
        """Shares and multiples of all kinds."""
        return {"channels": (self.channels_ratio, self.multiple), **self.other_shares}

    @property
    def other_shares(self) -> dict[GroupKind, tuple[float, int]]:
        """Shares and multiples of all kinds but channels."""
        return {
            "heads": (self.heads_ratio, 1),
            "experts": (self.experts_ratio, 1),
            "layers": (self.layers_ratio, 1),
            "hidden": (self.hidden_ratio, self.multiple),
        }

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Codes, teachers of another tokenizer, and architectures that cannot be cut."""
        from limbeck.pruning.known_inputs import refuse_cut

        packed = self.batching.packing != "none"
        sound = True
        for refusal in refuse_training(
            inputs, field="checkpoint", packed=packed, objective=self.objective
        ):
            sound = False
            yield refusal
        matched = self.objective.matched_features
        yield from refuse_teachers(inputs, needs=self.objective.needs(), matched=matched)
        if inputs.start is not None and sound:
            fixed = self
            if self.budget is not None:
                try:
                    fixed = self.resolve_budget(inputs.start.config)
                except CheckpointError as error:
                    yield Refusal("budget", str(error))
                    return
            yield from refuse_cut(inputs.start, shares=fixed.shares)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.prune import run

        return run(self, work=work)
