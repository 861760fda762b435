"""One optimizer step: sums and counts over micro-batches and processes, divided once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from limbeck.contracts.errors import TrainingError
from limbeck.contracts.fields import Precision
from limbeck.env.seeds import mix_seeds
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import Loss, Objective
from limbeck.training.cpu_microbatches import (
    SummedGradients,
    draws_random,
    keep_freed_memory,
)
from limbeck.training.distributed.ranks import RankMicrobatch, assign_microbatches_to_rank, gather


class ModelWithLoss(nn.Module):
    """Model and loss in one module, so that DDP, FSDP and DeepSpeed wrap both."""

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        *,
        precision: Precision,
    ) -> None:
        super().__init__()
        self.forward_pass = KeptForward(model)
        self.objective = objective
        self.mixed = precision == "bfloat16"
        # What is sharded together; accelerate reads it from the outermost module.
        self._no_split_modules = model._no_split_modules

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], int, dict[str, float]]:
        """The loss's sum, count and parts: a tuple, whose tensors wrappers can find."""
        device = batch.input_ids.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.mixed):
            loss: Loss = self.objective(self.forward_pass, batch)
        return loss.sum, loss.count, loss.parts


@dataclass(frozen=True)
class Sums:
    """A micro-batch's figures, as processes exchange them."""

    count: int
    values: Mapping[str, float]

    @staticmethod
    def of(loss: Loss) -> "Sums":
        """Figures of a loss."""
        return Sums(loss.count, {"loss": loss.sum.item(), **loss.parts})


class Stepper(ABC):
    """Takes optimizer steps; every process gets the same figures of the whole step."""

    def __init__(
        self,
        accelerator: Accelerator,
        model_with_loss: nn.Module,
        optimizer: Optimizer,
        *,
        objective: Objective,
        max_grad_norm: float,
        seed: int,
    ) -> None:
        self.accelerator = accelerator
        self.model_with_loss = model_with_loss
        self.optimizer = optimizer
        self.objective = objective
        self.max_grad_norm = max_grad_norm
        self.seed = seed
        self.random = draws_random(model_with_loss)
        self._start()

    def __call__(self, step: int, batches: Sequence[Batch], *, lr: float) -> dict[str, float]:
        """Add sums and counts over micro-batches and processes, divide once, and step.

        Raises:
            TrainingError: there is nothing to learn from, or a number is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        accelerator = self.accelerator
        mine = assign_microbatches_to_rank(
            batches, index=accelerator.process_index, num_processes=accelerator.num_processes
        )
        totals: dict[str, float] = {"loss": 0.0}
        count = 0
        for losses in gather(accelerator, self._differentiate(step, mine, batches=batches)):
            for loss in losses:
                count += loss.count
                for name, value in loss.values.items():
                    totals[name] = totals.get(name, 0.0) + value
        if count == 0:
            raise TrainingError(
                f"step {step}: no token carries a loss; raise max_tokens or check the answers"
            )
        norm = self._clip(count)
        if not math.isfinite(norm) or not math.isfinite(totals["loss"]):
            raise TrainingError(
                f"step {step}: loss {totals['loss'] / count!r}, gradient norm {norm!r}; lower "
                f"learning_rate (now {lr:.3g}) or raise warmup_steps"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        means = {name: value / count for name, value in totals.items()}
        return {
            "step": float(step),
            **means,
            "lr": lr,
            "gradient_norm": norm,
            "tokens": float(count),
        }

    def compute_loss(self, step: int, microbatch: RankMicrobatch) -> Loss:
        """A micro-batch's loss; zero, with all its collectives, for a padding micro-batch."""
        batch = microbatch.batch.to(self.accelerator.device)
        if self.random:
            torch.manual_seed(mix_seeds(self.seed, step, microbatch.place, num_bits=31))
        if not microbatch.is_padding:
            return Loss(*self.model_with_loss(batch))
        self.objective.eval()
        total, _, _ = self.model_with_loss(batch)
        self.objective.train()
        return Loss(total * 0.0, 0, {})

    @abstractmethod
    def _start(self) -> None:
        """Prepare what the first step needs; called once, by the constructor."""

    @abstractmethod
    def _differentiate(
        self, step: int, mine: Sequence[RankMicrobatch], *, batches: Sequence[Batch]
    ) -> list[Sums]:
        """The sums of this process's micro-batches; gradients are added up and exchanged."""

    @abstractmethod
    def _clip(self, count: int) -> float:
        """The norm of the mean gradient, which is scaled down where it is too large."""

    @abstractmethod
    def close(self) -> None:
        """End what was started."""


class PlainStepper(Stepper):
    """One process, DDP or FSDP2; alone on a CPU, each core takes micro-batches of its own."""

    def _start(self) -> None:
        self.trained = [item for group in self.optimizer.param_groups for item in group["params"]]
        self.summed: SummedGradients | None = None
        if self.accelerator.num_processes == 1 and self.accelerator.device.type == "cpu":
            keep_freed_memory(self.model_with_loss.parameters())
            num_workers = 1 if self.random else torch.get_num_threads()
            self.summed = SummedGradients(self.trained, num_workers=num_workers)

    def close(self) -> None:
        """End the threads."""
        if self.summed is not None:
            self.summed.close()

    def _differentiate(
        self, step: int, mine: Sequence[RankMicrobatch], *, batches: Sequence[Batch]
    ) -> list[Sums]:
        # One micro-batch alone is better shared among the threads than left to one of them.
        if self.summed is not None and len(mine) > 1:
            of_batch = {id(item.batch): item for item in mine}
            losses = self.summed(
                batches, compute_loss=lambda batch: self.compute_loss(step, of_batch[id(batch)])
            )
            return [Sums.of(loss) for loss in losses]
        sums = []
        for place, microbatch in enumerate(mine):
            # Processes exchange gradients after the last one only.
            last = place == len(mine) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model_with_loss):
                loss = self.compute_loss(step, microbatch)
                self.accelerator.backward(loss.sum)
            sums.append(Sums.of(loss))
        return sums

    def _clip(self, count: int) -> float:
        # The processes' gradients are averaged, and their sum is needed.
        factor = self.accelerator.num_processes / count
        grads = [item.grad for item in self.trained if item.grad is not None]
        total = nn.utils.get_total_norm(grads)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total) * factor
        torch._foreach_mul_(grads, factor * min(1.0, self.max_grad_norm / max(norm, 1e-12)))
        return norm
