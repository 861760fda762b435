"""Learning rate by step, and which parameters decay: pure functions and a small table."""

import math
from collections.abc import Iterable

from torch import nn

from limbeck.training.config import TrainingConfig


def find_lr(step: int, *, config: TrainingConfig) -> float:
    """The learning rate of a step, counted from 0, of a training whose number of steps is known."""
    if config.lr_scheduler_type == "constant_with_warmup":
        return constant_lr(step, peak_lr=config.learning_rate, warmup_steps=config.warmup_steps)
    return cosine_lr(
        step,
        steps=config.max_steps,
        peak_lr=config.learning_rate,
        warmup_steps=config.warmup_steps,
        final_ratio=config.min_lr_rate,
    )


def constant_lr(step: int, *, peak_lr: float, warmup_steps: int) -> float:
    """Linear warm-up to the peak, which is kept."""
    return peak_lr * min(1.0, (step + 1) / max(1, warmup_steps))


def cosine_lr(
    step: int, *, steps: int, peak_lr: float, warmup_steps: int, final_ratio: float
) -> float:
    """Linear warm-up to the peak, then half a cosine down to `final_ratio` of it."""
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, steps - warmup_steps)
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return peak_lr * (final_ratio + (1 - final_ratio) * falling)


def group_parameters(modules: Iterable[nn.Module], *, weight_decay: float) -> list[dict]:
    """Optimizer groups: matrices decay, vectors (norms, scales) do not."""
    parameters = {id(item): item for module in modules for item in module.parameters()}
    trained = [item for item in parameters.values() if item.requires_grad]
    return [
        {"params": [item for item in trained if item.ndim >= 2], "weight_decay": weight_decay},
        {"params": [item for item in trained if item.ndim < 2], "weight_decay": 0.0},
    ]
