"""The training loop: sums and counts in, one optimizer step out, resumable at any step.

Every method of Limbeck that learns passes its objective and its batches in.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import OnStep, ignore_step
from limbeck.contracts.errors import LaunchError, TrainingError
from limbeck.env.progress import track
from limbeck.models.batch import Batch
from limbeck.training.config import TrainingConfig
from limbeck.training.distributed.deepspeed import (
    DeepSpeedStepper,
    gather_engine,
    set_up_engine,
    spread_engine,
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
    spread_optimizer,
)
from limbeck.training.lr_schedule import cosine_lr, group_parameters
from limbeck.training.optimizer_step import ModelWithLoss, PlainStepper
from limbeck.training.train_state import Saved, read_state, restore, save_state


@runtime_checkable
class Stateful(Protocol):
    """Something beside model and optimizer that a resumed run needs."""

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...  # noqa: D102


History = list[dict[str, float]]


def fit(
    model: PreTrainedModel,
    *,
    batches: Callable[[int], Sequence[Batch]],
    objective: nn.Module,
    config: TrainingConfig,
    state: Path,
    title: str,
    after_step: Callable[[int, float], None] | None = None,
    stateful: Stateful | None = None,
    on_step: OnStep = ignore_step,
) -> History:
    """The training curve, the same on every process; the model is trained in place.

    `batches(step)` gives the micro-batches of a step, the same on every process, which takes its
    share; `objective(forward, batch)` a loss with sum, count and parts. `after_step(step, lr)` runs
    without gradients after each optimizer step, `on_step` once the step is in the history;
    `stateful` is saved and restored with the model.
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
        _check_divisible(model, title=title, between=after_step or stateful)
    trained = model if sharding == "none" else copy.deepcopy(model)
    with _checkpointed(trained, config.gradient_checkpointing):
        run = _Run(accelerator, trained, objective, config=config, state=state, extra=stateful)
        history = run.loop(batches, title=title, after_step=after_step, on_step=on_step)
        run.give_back(model)
    return history


def _check_divisible(model: PreTrainedModel, *, title: str, between: Any) -> None:
    """Refuse what needs whole weights between two steps, or not always the same parts in one."""
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
def _checkpointed(model: PreTrainedModel, which: Literal["none", "layers"]) -> Iterator[None]:
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
        objective: nn.Module,
        *,
        config: TrainingConfig,
        state: Path,
        extra: Stateful | None,
    ) -> None:
        self.accelerator, self.config, self.folder = accelerator, config, state
        self.sharding: Sharding = find_sharding(accelerator)
        self.model, self.objective, self.extra = model, objective, extra
        saved = read_state(state)
        self.done, self.history = saved.step, saved.history
        if len(set(gather(accelerator, saved.step))) > 1:
            raise LaunchError(
                f"{state}: the processes do not see the same state; put --runs on a disk that all "
                "machines share"
            )
        loaders: dict[str, Any] = {
            "model": model.load_state_dict,
            "objective": objective.load_state_dict,
        }
        if extra is not None:
            loaders["stateful"] = extra.load_state_dict
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
        self.judged = ModelWithLoss(model, objective, precision=config.precision)
        if self.sharding == "zero":
            set_up_engine(accelerator, max_grad_norm=config.max_grad_norm)
        prepared, self.optimizer = accelerator.prepare(self.judged, optimizer)
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
        after_step: Callable[[int, float], None] | None,
        on_step: OnStep,
    ) -> History:
        """Train from the state on, to the last step."""
        config, steps = self.config, self.config.max_steps
        self.model.train()
        saved = time.monotonic()
        with (
            closing(self.stepper),
            track(title, total=steps, unit="step", done=self.done) as advance,
        ):
            for step in range(self.done, steps):
                torch.manual_seed(hash((config.seed, step)) % 2**31)
                lr = cosine_lr(
                    step,
                    steps=steps,
                    peak_lr=config.learning_rate,
                    warmup_steps=config.warmup_steps,
                    final_ratio=config.min_lr_rate,
                )
                self.objective.before_step(progress=step / steps)  # pyright: ignore[reportCallIssue]
                point = self.stepper(step, batches(step), lr=lr)
                with torch.no_grad():
                    self.objective.after_step(model=self.model)  # pyright: ignore[reportCallIssue]
                    if after_step is not None:
                        after_step(step, lr)
                if step % config.logging_steps == 0 or step == steps - 1:
                    self.history.append(point)
                advance(1, f"loss {point['loss']:.4f}")
                on_step(step + 1, steps, self.model)
                due = time.monotonic() - saved >= config.save_interval_seconds
                if step < steps - 1 and broadcast_from_rank0(self.accelerator, due):
                    self._save(step + 1)
                    saved = time.monotonic()
        self.model.eval()
        return self.history

    def _save(self, step: int) -> None:
        """Put the whole state into the folder; the processes gather it, the first one writes."""
        weights = gather_weights(self.judged, sharding=self.sharding)
        parts = {
            "model": _below("forward_pass.model.", weights),
            "objective": _below("objective.", weights),
            "optimizer": self._gather_optimizer(),
        }
        if self.extra is not None:
            parts["stateful"] = self.extra.state_dict()
        if self.accelerator.is_main_process:
            save_state(self.folder, saved=Saved(step, self.history, parts))

    def _gather_optimizer(self) -> dict[str, Any]:
        if self.sharding == "zero":
            state = gather_engine(self.optimizer.optimizer, parameters=self.parameters)
        else:
            state = gather_optimizer(self.optimizer)
        return {"state": state, "param_groups": self.groups}

    def _load_optimizer(self, value: Mapping[str, Any]) -> None:
        if self.sharding == "zero":
            spread_engine(
                self.optimizer.optimizer,
                value["state"],
                parameters=self.parameters,
                accelerator=self.accelerator,
            )
        else:
            spread_optimizer(self.optimizer, value)

    def give_back(self, model: PreTrainedModel) -> None:
        """Make the first process's model the trained one."""
        if self.sharding != "none":
            weights = gather_weights(self.judged, sharding=self.sharding)
            if self.accelerator.is_main_process:
                model.load_state_dict(_below("forward_pass.model.", weights))
            model.eval()
        self.accelerator.free_memory()


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of one module of a state, under its own names."""
    return {
        name.removeprefix(prefix): item for name, item in state.items() if name.startswith(prefix)
    }
