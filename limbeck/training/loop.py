"""The training loop: sums and counts in, one optimizer step out, resumable at any step.

Every method of Limbeck that learns passes its objective and its batches in.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.stateful import Stateful
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import OnStep, ignore_step
from limbeck.contracts.errors import LaunchError, TrainingError
from limbeck.env.progress import track
from limbeck.env.seeds import mix_seeds
from limbeck.models.batch import Batch
from limbeck.objectives.base import Objective
from limbeck.sizing.cards import Recomputing
from limbeck.training.config import TrainingConfig
from limbeck.training.distributed.deepspeed import (
    DeepSpeedStepper,
    gather_engine,
    scatter_engine,
    set_up_engine,
)
from limbeck.training.distributed.ranks import (
    Sharding,
    broadcast_from_rank0,
    find_sharding,
    gather,
    open_accelerator,
)
from limbeck.training.distributed.sharded_state import (
    gather_optimizer,
    gather_weights,
    scatter_optimizer,
)
from limbeck.training.early_stopping import EarlyStopper
from limbeck.training.lr_schedule import find_lr, group_parameters
from limbeck.training.optimizer_step import ModelWithLoss, PlainStepper
from limbeck.training.train_state import Saved, StateDict, read_state, restore, save_state

History = list[dict[str, float]]


def fit(
    model: PreTrainedModel,
    *,
    batches: Callable[[int], Sequence[Batch]],
    objective: Objective,
    config: TrainingConfig,
    state: Path,
    title: str,
    before_step: Callable[[nn.Module, float], None] | None = None,
    after_step: Callable[[int], None] | None = None,
    stateful: Stateful | None = None,
    stopper: EarlyStopper | None = None,
    on_step: OnStep = ignore_step,
) -> History:
    """The training curve, the same on every process; the model is trained in place.

    `batches(step)` gives the micro-batches of a step, the same on every process, which takes its
    share; `objective(forward, batch)` a loss with sum, count and parts. `before_step(model,
    progress)` prepares the trained model for an optimizer step, progress being the share of steps
    before it; `after_step(step)` runs without gradients after the step, `on_step` once it is in
    the history; `stateful` is saved and restored with the model. `stopper` ends training before its
    last step, and gives the model its best weights.
    Where processes divide the model among them, the first one gets it back whole, the others as
    it was.

    Raises:
        TrainingError: the loss or the gradient is no longer a finite number, or the saved state is
            another model's.
        LaunchError: the processes cannot train together as they were launched.
    """
    accelerator = open_accelerator()
    sharding = find_sharding(accelerator)
    if sharding != "none":
        _check_shardable(model, title=title, between=after_step or stateful or stopper)
    trained = model if sharding == "none" else copy.deepcopy(model)
    with _checkpointed(trained, config.gradient_checkpointing):
        run = _Run(
            accelerator,
            trained,
            objective,
            config=config,
            state=state,
            stateful=stateful,
            stopper=stopper,
        )
        history = run.loop(
            batches, title=title, before_step=before_step, after_step=after_step, on_step=on_step
        )
        run.copy_weights_to(model)
    return history


def _check_shardable(model: PreTrainedModel, *, title: str, between: object) -> None:
    """Refuse a sharded model where whole weights are needed, or ranks may run different parts."""
    if between is not None:
        reason = "reads or changes weights between steps, when they lie in parts"
    elif "vision_config" in model.config.to_dict():
        reason = "leaves the image encoder out where a micro-batch has no image"
    else:
        return
    raise LaunchError(
        f"{title}: {reason}; run this entry alone, or with recipes/accelerate/ddp.yaml"
    )


@contextmanager
def _checkpointed(model: PreTrainedModel, which: Recomputing) -> Iterator[None]:
    if which == "layers":
        try:
            model.activation_checkpointing_enable()
        except ValueError as error:
            raise TrainingError(f"gradient_checkpointing: {error}; set it to 'none'") from None
    try:
        yield
    finally:
        if which == "layers":
            model.activation_checkpointing_disable()


class _Run:
    """Model, objective and optimizer as they are trained, and their state between two steps."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: PreTrainedModel,
        objective: Objective,
        *,
        config: TrainingConfig,
        state: Path,
        stateful: Stateful | None,
        stopper: EarlyStopper | None,
    ) -> None:
        assert (config.early_stopping is None) == (stopper is None)
        self.accelerator, self.config, self.folder = accelerator, config, state
        self.sharding: Sharding = find_sharding(accelerator)
        self.model, self.objective = model, objective
        self.stateful, self.stopper = stateful, stopper
        saved = read_state(state)
        self.done, self.history = saved.step, saved.history
        if len(set(gather(accelerator, saved.step))) > 1:
            raise LaunchError(
                f"{state}: the processes read different states; put --runs on a disk that all "
                "machines share"
            )
        loaders: dict[str, Callable[[StateDict], object]] = {
            "model": model.load_state_dict,
            "objective": objective.load_state_dict,
        }
        if stateful is not None:
            loaders["stateful"] = stateful.load_state_dict
        if stopper is not None:
            loaders["early_stopping"] = stopper.load_state_dict
        restore(saved, folder=state, loaders=loaders)
        groups = group_parameters([model, objective], weight_decay=config.weight_decay)
        optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            fused=True,
        )
        self.parameters = [item for group in optimizer.param_groups for item in group["params"]]
        self.groups = optimizer.state_dict()["param_groups"]
        self.model_with_loss = ModelWithLoss(model, objective, precision=config.precision)
        if self.sharding == "zero":
            set_up_engine(accelerator, max_grad_norm=config.max_grad_norm)
        prepared, self.optimizer = accelerator.prepare(self.model_with_loss, optimizer)
        restore(
            saved,
            folder=state,
            loaders={"optimizer": self._load_optimizer},
        )
        stepper = DeepSpeedStepper if self.sharding == "zero" else PlainStepper
        self.stepper = stepper(
            accelerator,
            prepared,
            self.optimizer,
            objective=objective,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
        )

    def loop(
        self,
        batches: Callable[[int], Sequence[Batch]],
        *,
        title: str,
        before_step: Callable[[nn.Module, float], None] | None,
        after_step: Callable[[int], None] | None,
        on_step: OnStep,
    ) -> History:
        """Train from the state on, to the last step or to an early stop."""
        config, steps = self.config, self.config.max_steps
        self.model.train()
        saved = time.monotonic()
        with (
            closing(self.stepper),
            track(title, total=steps, unit="step", done=self.done) as advance,
        ):
            for step in range(self.done, steps):
                torch.manual_seed(mix_seeds(config.seed, step, num_bits=31))
                lr = find_lr(step, config=config)
                self.objective.before_step(progress=step / steps)
                if before_step is not None:
                    before_step(self.model, step / steps)
                point = self.stepper(step, batches(step), lr=lr)
                with torch.no_grad():
                    self.objective.after_step(model=self.model)
                    if after_step is not None:
                        after_step(step)
                measured, is_over = self._measure(step + 1)
                if measured or step % config.logging_steps == 0 or step == steps - 1:
                    self.history.append(point | measured)
                advance(1, f"loss {point['loss']:.4f}")
                on_step(step + 1, steps, self.model)
                if is_over:
                    break
                due = time.monotonic() - saved >= config.save_interval_seconds
                if step < steps - 1 and broadcast_from_rank0(self.accelerator, due):
                    self._save(step + 1)
                    saved = time.monotonic()
        self.model.eval()
        return self.history

    def _measure(self, done: int) -> tuple[dict[str, float], bool]:
        """The validation loss where it is due, and whether training ends; alike on all ranks."""
        stopper, steps = self.stopper, self.config.max_steps
        if stopper is None or not stopper.is_due(done, steps=steps):
            return {}, done == steps
        loss = broadcast_from_rank0(self.accelerator, stopper.measure(self.model))
        is_over = stopper.note(loss, done=done, model=self.model) or done == steps
        if is_over:
            stopper.restore_best(self.model, done=done)
        return {"validation_loss": loss}, is_over

    def _save(self, step: int) -> None:
        """Put the whole state into the folder; the processes gather it, the first one writes."""
        weights = gather_weights(self.model_with_loss, sharding=self.sharding)
        parts = {
            "model": _strip_prefix("forward_pass.model.", weights),
            "objective": _strip_prefix("objective.", weights),
            "optimizer": self._gather_optimizer(),
        }
        if self.stateful is not None:
            parts["stateful"] = self.stateful.state_dict()
        if self.stopper is not None:
            parts["early_stopping"] = self.stopper.state_dict()
        if self.accelerator.is_main_process:
            save_state(self.folder, saved=Saved(step, self.history, parts))

    def _gather_optimizer(self) -> StateDict:
        if self.sharding == "zero":
            state = gather_engine(self.optimizer.optimizer, parameters=self.parameters)
        else:
            state = gather_optimizer(self.optimizer)
        return {"state": state, "param_groups": self.groups}

    def _load_optimizer(self, value: StateDict) -> None:
        if self.sharding == "zero":
            scatter_engine(
                self.optimizer.optimizer,
                value["state"],
                parameters=self.parameters,
                accelerator=self.accelerator,
            )
        else:
            scatter_optimizer(self.optimizer, value)

    def copy_weights_to(self, model: PreTrainedModel) -> None:
        """Make the first process's model the trained one."""
        if self.sharding != "none":
            weights = gather_weights(self.model_with_loss, sharding=self.sharding)
            if self.accelerator.is_main_process:
                model.load_state_dict(_strip_prefix("forward_pass.model.", weights))
            model.eval()
        self.accelerator.free_memory()


def _strip_prefix(prefix: str, state: Mapping[str, Tensor]) -> StateDict:
    """The entries of one module of a state, under the module's own names."""
    return {
        name.removeprefix(prefix): item for name, item in state.items() if name.startswith(prefix)
    }
