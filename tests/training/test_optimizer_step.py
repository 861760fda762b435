"""One step is the mean gradient, scaled down to its largest norm, and nothing else."""

from contextlib import closing

import pytest
import torch
from accelerate import Accelerator

from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training import cpu_microbatches
from limbeck.training.lr_schedule import group_parameters
from limbeck.training.optimizer_step import ModelWithLoss, PlainStepper
from tests.objectives.test_objectives import make_batch

LARGE, SMALL = 1e9, 0.05


def vector(items):
    return torch.cat([item.detach().flatten().clone() for item in items])


def mean_gradient(model, batches):
    """By autograd alone: of the sum over all batches, divided by all their labels."""
    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    losses = [objective(KeptForward(model), batch) for batch in batches]
    mean = sum(loss.sum for loss in losses) / sum(loss.count for loss in losses)
    return vector(torch.autograd.grad(mean, list(model.parameters())))


@pytest.mark.parametrize("num_batches", [1, 3])
@pytest.mark.parametrize("max_grad_norm", [LARGE, SMALL])
def test_a_step_follows_the_clipped_mean_gradient(dense, max_grad_norm, num_batches):
    """Under plain SGD at a rate of one the change is the gradient; Adam would hide its scale."""
    batches = []
    for number in range(num_batches):
        batch = make_batch(vocab=dense.config.vocab_size, start=3 + number)
        ids = (batch.input_ids + number) % dense.config.vocab_size
        batches.append(Batch(ids, batch.labels, batch.record_ids, batch.tokens))
    gradient = mean_gradient(dense, batches)
    norm = float(gradient.norm())
    assert SMALL < norm < LARGE
    before = vector(dense.parameters())
    objective = NextToken(kind="next_token").build(ObjectiveContext(dense))
    stepper = PlainStepper(
        Accelerator(cpu=True),
        ModelWithLoss(dense, objective, precision="float32"),
        torch.optim.SGD(dense.parameters(), lr=1.0),
        objective=objective,
        max_grad_norm=max_grad_norm,
        seed=0,
    )
    with closing(stepper):
        told = stepper(1, batches, lr=1.0)
    assert told["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    expected = gradient * min(1.0, max_grad_norm / norm)
    change = before - vector(dense.parameters())
    assert float((change - expected).norm()) < 1e-4 * float(expected.norm())


def test_matrices_decay_and_norms_and_biases_do_not(dense, moe):
    for model in (dense, moe):
        groups = group_parameters([model], weight_decay=0.1)
        decays = {id(item): group["weight_decay"] for group in groups for item in group["params"]}
        found = {name: decays[id(item)] for name, item in model.named_parameters()}
        assert {name: value for name, value in found.items() if "norm" in name or "bias" in name}
        for name, value in found.items():
            assert value == (0.0 if "norm" in name or "bias" in name else 0.1), name


@pytest.mark.parametrize(("num_numbers", "kept"), [(2**26, True), (2**26 + 1, False)])
def test_freed_memory_is_kept_for_small_models_only(num_numbers, kept, monkeypatch):
    calls = []

    class Library:
        def __init__(self, name):
            self.mallopt = lambda *given: calls.append(given)

    monkeypatch.setattr(cpu_microbatches.ctypes, "CDLL", Library)
    monkeypatch.setattr(cpu_microbatches.sys, "platform", "linux")
    cpu_microbatches.keep_freed_memory([torch.empty(num_numbers, device="meta")])
    assert bool(calls) == kept
