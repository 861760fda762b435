"""Training until the validation loss no longer improves; the best weights seen are kept.

The rule is that of transformers' `EarlyStoppingCallback`, with `load_best_model_at_end`. Left out:
when processes agree on a stop, which the loop sees to.
"""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Shaped
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import DataError, TrainingError
from limbeck.evaluation.validation_loss import measure_validation
from limbeck.models.batch import Batch
from limbeck.training.config import EarlyStopping, TrainingConfig
from limbeck.training.train_state import StateDict

ReadValidation = Callable[[], Iterable[Batch]]
"""Gives the validation records that the entry's batching selects, each once."""


class EarlyStopper:
    """Measures the validation loss at intervals, and keeps the weights of the lowest one."""

    def __init__(self, config: EarlyStopping, *, held_out: ReadValidation) -> None:
        """A stopper that has measured nothing yet.

        Raises:
            DataError: there is no validation record to measure on.
        """
        if not any(True for _ in held_out()):
            raise DataError(
                "training.early_stopping measures validation records, and the entry's batching "
                "selects none in this corpus; hold some out with splits.validation_ratio where "
                "the corpus is prepared, or remove early_stopping"
            )
        self.config, self.held_out = config, held_out
        self.best_loss, self.best_step = math.inf, 0
        self.num_stale = 0
        """Measurements in a row without an improvement."""
        self.stopped_step = 0
        """The number of steps that were trained; 0 until training ends."""
        self._best: dict[str, Shaped[Tensor, ...]] = {}

    def is_due(self, done: int, *, steps: int) -> bool:
        """Whether the loss is measured after so many steps."""
        return done % self.config.eval_steps == 0 or done == steps

    def measure(self, model: PreTrainedModel) -> float:
        """Validation cross-entropy in nats a token; the model trains on as it was.

        Raises:
            TrainingError: it is not a finite number.
        """
        trained = model.training
        loss = measure_validation(model, self.held_out())["validation_loss"]
        model.train(trained)
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss!r}; lower learning_rate")
        return loss

    def note(self, loss: float, *, done: int, model: PreTrainedModel) -> bool:
        """Take in a measurement; whether training is to stop."""
        is_better = loss < self.best_loss - self.config.threshold
        self.num_stale = 0 if is_better else self.num_stale + 1
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, done
            self._best = _copy_trained(model)
        return self.num_stale >= self.config.patience

    @torch.no_grad()
    def restore_best(self, model: PreTrainedModel, *, done: int) -> None:
        """Give the model the weights of the lowest loss; training has ended after `done` steps."""
        self.stopped_step = done
        state = model.state_dict()
        for name, item in self._best.items():
            state[name].copy_(item)

    def metrics(self, *, max_steps: int) -> dict[str, object]:
        """At which step training stopped, and which step's weights were kept."""
        return {
            "stopped_early": self.stopped_step < max_steps,
            "stopped_step": self.stopped_step,
            "best_step": self.best_step,
            "best_validation_loss": self.best_loss,
        }

    def state_dict(self) -> StateDict:
        """Everything that a resumed run needs."""
        return {
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "num_stale": self.num_stale,
            "best": self._best,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Go on from a saved state."""
        self.best_loss, self.best_step = float(state["best_loss"]), int(state["best_step"])
        self.num_stale, self._best = int(state["num_stale"]), dict(state["best"])


def make_stopper(config: TrainingConfig, *, held_out: ReadValidation) -> EarlyStopper | None:
    """The stopper that a training's settings describe; None where they describe none.

    Raises:
        DataError: there is no validation record to measure on.
    """
    if config.early_stopping is None:
        return None
    return EarlyStopper(config.early_stopping, held_out=held_out)


def _copy_trained(model: PreTrainedModel) -> dict[str, Tensor]:
    """Copies of what training changes: trained parameters and buffers, in main memory."""
    frozen = {name for name, item in model.named_parameters() if not item.requires_grad}
    return {
        name: item.detach().to("cpu", copy=True)
        for name, item in model.state_dict().items()
        if name not in frozen
    }
