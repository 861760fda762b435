"""Log-probabilities of some tokens and of all others, against float64."""

import pytest
import torch

from limbeck.distillation.losses.top_k_log_probs import top_k_log_probs


def plain(logits, ids, temperature):
    scaled = (logits / temperature).log_softmax(dim=-1)
    others = scaled.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([scaled.gather(1, ids), others], dim=1)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0])
def test_logs_and_gradients_are_those_of_float64(temperature, scale):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 500, generator=generator) * scale
    ids = logits.topk(12).indices[:, torch.randperm(12, generator=generator)]
    seen = torch.randn(30, 13, generator=generator)
    one = logits.clone().requires_grad_()
    two = logits.double().requires_grad_()
    found, expected = (
        top_k_log_probs(one, ids, temperature=temperature),
        plain(two, ids, temperature),
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((found * seen).sum(), one, retain_graph=True)
    (true,) = torch.autograd.grad((expected * seen.double()).sum(), two)
    torch.testing.assert_close(gradient.double(), true, rtol=1e-4, atol=2e-6)
    (again,) = torch.autograd.grad((found * seen).sum(), one)
    assert torch.equal(gradient, again)


def test_tails_that_vanish_or_are_empty_have_no_gradient():
    logits = torch.tensor([[0.0, -1.0, -500.0], [0.0, -200.0, -300.0]], requires_grad=True)
    found = top_k_log_probs(logits, torch.tensor([[0, 1], [0, 1]]), temperature=1.0)
    assert found[:, -1].tolist() == [-80.0, -80.0]
    found[:, -1].sum().backward()
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros(2, 3))
    every = top_k_log_probs(logits.detach(), torch.tensor([[2, 0, 1], [1, 2, 0]]), temperature=1.0)
    assert every[:, -1].tolist() == [-80.0, -80.0] and every[:, :-1].isfinite().all()


def test_half_precision_students_get_half_precision_gradients():
    logits = torch.randn(4, 50, dtype=torch.bfloat16, requires_grad=True)
    top_k_log_probs(logits, torch.tensor([[1, 2]] * 4), temperature=2.0).sum().backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16
