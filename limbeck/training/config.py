"""How a model is trained, whatever it learns."""

from typing import Annotated, Literal

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeFloat, PositiveInt, Precision
from limbeck.sizing.cards import Recomputing
from limbeck.training.token_budget import StepBudget, count_steps


class EarlyStopping(Config):
    """Training ends where the validation loss no longer falls; its best weights are the result.

    Measured is what `validation_loss` of the artifact is: the cross-entropy of the written answers
    of all validation records.
    """

    eval_steps: PositiveInt = 50
    """Optimizer steps between two measurements; the last step is measured too."""
    patience: PositiveInt = 3
    """Measurements in a row without an improvement after which training ends."""
    threshold: NonNegativeFloat = 0.0
    """An improvement is a fall of the best loss by more than this, in nats per token."""


class TrainingConfig(Config):
    """How a model is trained, whatever it learns."""

    max_steps: StepBudget
    """Optimizer steps: a number, or a share of a token budget (`token_budget.py`)."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    lr_scheduler_type: Literal["cosine", "constant_with_warmup"] = "cosine"
    """The learning rate after the warm-up. The cosine falls until `max_steps`, even where
    `early_stopping` ends training before; a constant one does not depend on `max_steps`."""
    min_lr_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger norm are scaled down to it."""
    precision: Precision = "float32"
    """Of the forward pass; weights, gates and losses stay float32."""
    gradient_checkpointing: Recomputing = "none"
    """`layers` keeps only each layer's input for the backward pass and computes the rest again: far
    less memory for about a third more time."""
    seed: int = 0
    save_interval_seconds: Annotated[float, Field(ge=0)] = 30.0
    """At most this much work is lost to a kill; 0 saves every step."""
    logging_steps: Annotated[int, Field(gt=0)] = 10
    early_stopping: EarlyStopping | None = None
    """Ends training before `max_steps` where the validation loss no longer falls."""

    def resolve_steps(self, *, tokens_per_step: float) -> "TrainingConfig":
        """The same with `max_steps` as a number."""
        return self.replace(max_steps=count_steps(self.max_steps, tokens_per_step=tokens_per_step))
