"""The form of teacher output of the page serves losses as every other form does."""

import pytest
import torch

from docs.extend.examples.teacher_output import quantize_logits
from limbeck.contracts.config import resolve
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.targets import FullLogits


@pytest.fixture
def logits():
    return torch.randn(6, 11, generator=torch.Generator().manual_seed(0)) * 4


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_divergences_are_those_of_the_restored_logits(kind, logits):
    output = quantize_logits(logits)
    restored = FullLogits(output.full_logits())
    assert (restored.logits - logits).abs().max() <= logits.abs().max() / 127
    divergence = resolve(DIVERGENCES, kind, what="divergence")(kind=kind)
    losses = []
    for form in (output, restored):
        student = torch.zeros_like(logits).requires_grad_()
        total = divergence.total(student, form, temperature=2.0)
        total.backward()
        losses.append((total.detach(), student.grad))
    torch.testing.assert_close(*losses)


def test_rows_are_cut_and_joined(logits):
    output = quantize_logits(logits)
    joined = output.rows(slice(0, 2)).cat([output.rows(slice(2, 6))])
    assert joined is not None
    assert torch.equal(joined.full_logits(), output.full_logits())


def test_the_chunked_loss_takes_it(logits):
    states, head = torch.randn(6, 5), torch.randn(11, 5)
    labels = torch.arange(6)
    divergence = resolve(DIVERGENCES, "forward_kl", what="divergence")(kind="forward_kl")
    mix = Mix(divergence, temperature=1.0, weight=0.5, vocab=11)
    found = [
        chunked_loss(states=states, head=head, labels=labels, output=form, mix=mix).sum
        for form in (quantize_logits(logits), FullLogits(quantize_logits(logits).full_logits()))
    ]
    torch.testing.assert_close(*found)
