"""Divergences by name: what is true of each, and a float64 reference for each."""

import numpy as np
import pytest
import torch

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import TrainingError
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.targets import FullLogits, HiddenAndHead, ImportanceSampled, TopK

NAMES = sorted(DIVERGENCES)
# Those whose terms a bucket can only lower: f-divergences.
MERGED = sorted(DIVERGENCES.keys() - {"adaptive"})


def make(kind, **settings):
    return resolve(DIVERGENCES, kind, what="divergence").model_validate({"kind": kind} | settings)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def top_of(logits, *, top, temperature):
    values, ids = logits.topk(top, dim=-1)
    tail = (logits / temperature).scatter(1, ids, -torch.inf).logsumexp(dim=-1)
    return TopK(values, ids, tail.clamp(min=-1e4), temperature)


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)))


def plain(kind, p, q):
    """One token's divergence from the textbook, in float64."""
    mixed = 0.1 * p + 0.9 * q, 0.9 * p + 0.1 * q
    if kind == "adaptive":
        head, mass = np.zeros(len(p)), 0.0
        for place in np.argsort(-p):
            if mass >= 0.5:
                break
            head[place], mass = 1.0, mass + p[place]
        share = np.sum(np.abs(p - q) * head) / np.sum(np.abs(p - q))
        return share * kl(p, q) + (1 - share) * kl(q, p)
    return {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "jensen_shannon": lambda: (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2,
        "skew_forward": lambda: kl(p, mixed[0]),
        "skew_reverse": lambda: kl(q, mixed[1]),
        "total_variation": lambda: np.abs(p - q).sum() / 2,
    }[kind]()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("kind", NAMES)
def test_each_equals_a_float64_reference(kind, temperature):
    student, teacher = draw(5, 40, seed=0), draw(5, 40, seed=1)
    found = make(kind).total(student, FullLogits(teacher), temperature=temperature)
    p, q = ((side.double() / temperature).softmax(dim=-1).numpy() for side in (teacher, student))
    power = 1 if kind == "total_variation" else 2
    wanted = sum(plain(kind, *pair) for pair in zip(p, q, strict=True)) * temperature**power
    assert found.item() == pytest.approx(wanted, rel=2e-5)


@pytest.mark.parametrize("kind", NAMES)
def test_value_and_gradient_are_zero_when_they_agree(kind):
    teacher = draw(4, 30, seed=2)
    # Absolute differences have a kink where rounding alone decides the gradient's sign.
    shift = 0.0 if kind == "total_variation" else 3.0
    student = (teacher + shift).requires_grad_()
    found = make(kind).total(student, FullLogits(teacher), temperature=2.0)
    found.backward()
    assert abs(found.item()) < 1e-5
    assert student.grad is not None and student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("kind", NAMES)
def test_projected_targets_are_their_logits(kind):
    states, head, student = draw(4, 8, seed=3), draw(25, 8, seed=4) / 4, draw(4, 20, seed=5)
    found = make(kind).total(student, HiddenAndHead(states, head), temperature=1.5)
    wanted = make(kind).total(student, FullLogits(states @ head.T), temperature=1.5)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("kind", MERGED)
def test_top_tokens_never_exceed_the_whole_and_equal_it_without_others(kind):
    divergence, temperature = make(kind), 1.5
    for seed in range(5):
        student, teacher = draw(6, 32, seed=seed), draw(6, 32, seed=seed + 50)
        whole = divergence.total(student, FullLogits(teacher), temperature=temperature).item()
        for top in (1, 4, 16):
            output = top_of(teacher, top=top, temperature=temperature)
            found = divergence.total(student, output, temperature=temperature).item()
            assert found <= whole * (1 + 1e-5)
        output = top_of(teacher, top=32, temperature=temperature)
        assert divergence.total(student, output, temperature=temperature).item() == pytest.approx(
            whole, rel=1e-4
        )


@pytest.mark.parametrize("kind", MERGED)
def test_drawn_tokens_estimate_the_whole_without_bias(kind):
    temperature, num_draws, num_rounds = 2.0, 8, 4000
    student, teacher = draw(1, 24, seed=6), draw(1, 24, seed=7)
    logs = (teacher / temperature).log_softmax(dim=-1)
    generator = torch.Generator().manual_seed(8)
    # A proposal that is not the teacher's distribution: half of it is even.
    proposal = 0.5 * logs.exp() + 0.5 / 24
    ids = proposal.expand(num_rounds, -1).multinomial(
        num_draws, replacement=True, generator=generator
    )
    weights = logs.exp()[0, ids] / proposal[0, ids] / num_draws
    # One more place that holds nothing must not count, whatever stands there.
    empty = torch.zeros(num_rounds, 1)
    output = ImportanceSampled(
        torch.cat([ids, empty.long()], dim=1),
        torch.cat([weights, empty], dim=1),
        torch.cat([logs[0, ids], empty - torch.inf], dim=1),
        temperature,
    )
    divergence = make(kind)
    rounds = [
        divergence.total(
            student,
            output.rows(slice(place, place + 1)),
            temperature=temperature,
        ).item()
        for place in range(400)
    ]
    many = student.expand(num_rounds, -1)
    mean = divergence.total(many, output, temperature=temperature).item() / num_rounds
    whole = divergence.total(student, FullLogits(teacher), temperature=temperature).item()
    error = np.std(rounds) / num_rounds**0.5
    assert abs(mean - whole) < 5 * error
    assert error < 0.1 * whole


def test_the_adaptive_one_lies_between_both_kls():
    for seed in range(10):
        student, teacher = draw(1, 40, seed=seed), draw(1, 40, seed=seed + 20)
        forward, reverse, found = (
            make(kind).total(student, FullLogits(teacher), temperature=1.0).item()
            for kind in ("forward_kl", "reverse_kl", "adaptive")
        )
        assert min(forward, reverse) - 1e-5 <= found <= max(forward, reverse) + 1e-5


def test_the_adaptive_one_refuses_drawn_tokens():
    ids = torch.zeros(1, 3, dtype=torch.int64)
    output = ImportanceSampled(ids, torch.ones(1, 3), torch.zeros(1, 3), temperature=1.0)
    with pytest.raises(TrainingError, match="adaptive"):
        make("adaptive").total(draw(1, 9, seed=0), output, temperature=1.0)
