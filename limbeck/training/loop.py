"""The training loop: sums and counts in, one optimizer step out, resumable at any step.

Every method of Limbeck that learns passes its objective and its batches in. Left out: what is
learnt (`limbeck.objectives`) and from what (`limbeck.data`).
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from limbeck.contracts.config import Config
from limbeck.contracts.errors import TrainingError
from limbeck.contracts.progress import track
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.training.budget import Steps, count_steps
from limbeck.training.gradients import LossLike, SummedGradients, draws_random, keep_freed_memory
from limbeck.training.schedule import cosine_lr, group_parameters
from limbeck.training.state import load_state, save_state

logger = logging.getLogger(__name__)


class TrainingConfig(Config):
    """How a model is trained, whatever it learns."""

    steps: Steps
    """Optimizer steps: a number, or a share of a token budget (`budget.py`)."""
    lr: Annotated[float, Field(gt=0)] = 0.001
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    final_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Learning rate at the end of the cosine, as a share of the peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger norm are scaled down to it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward pass; weights, gates and losses stay float32."""
    seed: int = 0
    save_interval_seconds: Annotated[float, Field(ge=0)] = 30.0
    """At most this much work is lost to a kill; 0 saves every step."""
    log_interval_steps: Annotated[int, Field(gt=0)] = 10

    def settle(self, *, tokens_per_step: float) -> "TrainingConfig":
        """The same with `steps` as a number."""
        return self.replace(steps=count_steps(self.steps, tokens_per_step=tokens_per_step))


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
) -> History:
    """The training curve; the model is trained in place.

    `batches(step)` gives the micro-batches of a step; `objective(forward, batch)` a loss with sum,
    count and parts. `after_step(step, lr)` runs without gradients after each optimizer step;
    `stateful` is saved and restored with the model.

    Raises:
        TrainingError: the loss or the gradient is no longer a finite number.
    """
    mixed = "bf16" if config.precision == "bfloat16" else "no"
    accelerator = Accelerator(mixed_precision=mixed)
    groups = group_parameters([model, objective], weight_decay=config.weight_decay)
    optimizer = torch.optim.AdamW(
        groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True
    )
    objective.to(accelerator.device)
    forward, optimizer = accelerator.prepare(KeptForward(model), optimizer)
    parts = {"model": model, "objective": objective, "optimizer": optimizer}
    if stateful is not None:
        parts["stateful"] = stateful
    history: History = []
    done = load_state(state, parts=parts, history=history)
    model.train()
    saved = time.monotonic()
    with (
        closing(_Run(accelerator, forward, objective, optimizer, config)) as run,
        track(title, total=config.steps, unit="step", done=done) as advance,
    ):
        for step in range(done, config.steps):
            torch.manual_seed(hash((config.seed, step)) % 2**31)
            point = run.step(step, batches(step))
            lr = point["lr"]
            with torch.no_grad():
                objective.after_step(model=model)  # pyright: ignore[reportCallIssue]
                if after_step is not None:
                    after_step(step, lr)
            if step % config.log_interval_steps == 0 or step == config.steps - 1:
                history.append(point)
            advance(1, f"loss {point['loss']:.4f}")
            due = time.monotonic() - saved >= config.save_interval_seconds
            if due and step < config.steps - 1 and accelerator.is_main_process:
                save_state(state, step=step + 1, parts=parts, history=history)
                saved = time.monotonic()
    model.eval()
    return history


class _Run:
    """What one optimizer step needs, so that the step reads as its arithmetic."""

    def __init__(
        self, accelerator: Accelerator, forward: nn.Module, objective: nn.Module,
        optimizer: Any, config: TrainingConfig,
    ) -> None:  # fmt: skip
        self.accelerator = accelerator
        self.forward = forward
        self.objective = objective
        self.optimizer = optimizer
        self.config = config
        self.trained = [item for group in optimizer.param_groups for item in group["params"]]
        self.summed: SummedGradients | None = None
        if accelerator.num_processes == 1 and accelerator.device.type == "cpu":
            keep_freed_memory()
            num_workers = 1 if draws_random(forward) else torch.get_num_threads()
            self.summed = SummedGradients(self.trained, num_workers=num_workers)

    def close(self) -> None:
        """End what the run has started."""
        if self.summed is not None:
            self.summed.close()

    def step(self, step: int, batches: Sequence[Batch]) -> dict[str, float]:
        """Add sums and counts over micro-batches and ranks, divide once, and step."""
        config, accelerator = self.config, self.accelerator
        mine = batches[accelerator.process_index :: accelerator.num_processes]
        # One micro-batch alone is better shared among the threads than left to one of them.
        if self.summed is not None and len(mine) > 1:
            losses = self.summed(mine, judge=self._judge)
        else:
            losses = self._differentiate_in_turn(mine)
        totals: dict[str, float] = {"loss": 0.0}
        for loss in losses:
            for name, value in {"loss": loss.sum.item(), **loss.parts}.items():
                totals[name] = totals.get(name, 0.0) + value
        count = sum(loss.count for loss in losses)
        if accelerator.num_processes > 1:
            counts = accelerator.gather(torch.tensor([count], device=accelerator.device))
            count = int(counts.sum())  # pyright: ignore[reportAttributeAccessIssue]
        if count == 0:
            raise TrainingError(
                f"step {step}: no token carries a loss; raise max_tokens or check the answers"
            )
        norm = self._divide_and_clip(accelerator.num_processes / count)
        if not math.isfinite(norm) or not math.isfinite(totals["loss"]):
            raise TrainingError(
                f"step {step}: loss {totals['loss'] / count!r}, gradient norm {norm!r}; lower lr "
                f"(now {config.lr}) or raise warmup_steps"
            )
        lr = cosine_lr(
            step, steps=config.steps, peak_lr=config.lr,
            warmup_steps=config.warmup_steps, final_ratio=config.final_lr_ratio,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        means = {name: value / count for name, value in totals.items()}
        return {
            "step": float(step), **means, "lr": lr, "gradient_norm": norm, "tokens": float(count)
        }  # fmt: skip

    def _judge(self, batch: Batch) -> LossLike:
        with self.accelerator.autocast():
            return self.objective(self.forward, batch.to(self.accelerator.device))

    def _differentiate_in_turn(self, batches: Sequence[Batch]) -> list[LossLike]:
        """Each micro-batch's loss; ranks exchange gradients after the last one only."""
        losses = []
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            loss = self._judge(batch)
            with nullcontext() if last else self.accelerator.no_sync(self.forward):
                self.accelerator.backward(loss.sum)
            losses.append(loss)
        return losses

    def _divide_and_clip(self, factor: float) -> float:
        """The gradient's norm after dividing by the count; larger ones are scaled down."""
        grads = [item.grad for item in self.trained if item.grad is not None]
        norm = float(nn.utils.get_total_norm(grads)) * factor
        scale = factor * min(1.0, self.config.clip_norm / max(norm, 1e-12))
        torch._foreach_mul_(grads, scale)
        return norm
