"""Distances across tokenizers: against plain sums in float64, and what must be zero."""

import math

import pytest
import torch

from limbeck.distillation.losses.config import CrossTokenizer
from limbeck.distillation.losses.cross_tokenizer import (
    cross_distance,
    find_starts,
    merge,
    outcome_kl,
    span_kl,
    universal_distance,
)
from limbeck.distillation.targets import TokenAlignment

VOCAB, THEIRS = 7, 5


def aligned(**changes):
    """Six tokens against five: (ab)(c)(de) - and the student's last one has no partner."""
    values = {
        "student_spans": torch.tensor([0, 0, 1, 2, 2, -1]),
        "teacher_spans": torch.tensor([0, 1, 2, 2, 2]),
        "teacher_tokens": torch.tensor([3, 1, 0, 2, 2]),
        "student_outcomes": torch.tensor([0, 1, 1, 2, 3, 3, 0]),
        "teacher_outcomes": torch.tensor([2, 0, 3, 1, 1]),
        "num_outcomes": 4,
    }
    return TokenAlignment(**values | changes)


def logits(rows, vocab, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, vocab, generator=generator)


def config(**changes):
    return CrossTokenizer.model_validate({"kind": "cross_tokenizer", **changes})


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row.tolist()]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_universal_distance_is_the_gap_of_sorted_probabilities(temperature):
    ours, theirs = logits(3, VOCAB), logits(3, THEIRS, seed=1)
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        p, q = (sorted(softmax(row, temperature), reverse=True) for row in (a, b))
        q += [0.0] * (VOCAB - THEIRS)
        total += sum(abs(x - y) for x, y in zip(p, q, strict=True))
    found = universal_distance(student_logits=ours, teacher_logits=theirs, temperature=temperature)
    assert found.item() == pytest.approx(total, rel=1e-5)
    mixed = universal_distance(
        student_logits=ours, teacher_logits=ours[:, torch.randperm(VOCAB)], temperature=temperature
    )
    assert mixed.item() < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_spans_equal_a_plain_sum(temperature):
    ours, theirs, ties = logits(6, VOCAB), logits(5, THEIRS, seed=1), aligned()
    labels = torch.tensor([1, 6, 0, 2, 2, 5])
    p = [softmax(row, temperature) for row in theirs]
    q = [softmax(row, temperature) for row in ours]
    total = 0.0
    for ours_at, theirs_at in (([0, 1], [0]), ([2], [1]), ([3, 4], [2, 3, 4])):
        a, b = [0.0] * 4, [0.0] * 4
        for token, outcome in enumerate(ties.teacher_outcomes.tolist()):
            a[outcome] += p[theirs_at[0]][token]
        for token, outcome in enumerate(ties.student_outcomes.tolist()):
            b[outcome] += q[ours_at[0]][token]
        total += sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))
        if len(ours_at) + len(theirs_at) > 2:
            x = math.prod(p[at][int(ties.teacher_tokens[at])] for at in theirs_at)
            y = math.prod(q[at][int(labels[at])] for at in ours_at)
            total += x * math.log(x / y) + (1 - x) * math.log((1 - x) / (1 - y))
    found = cross_distance(
        student_logits=ours,
        labels=labels,
        teacher_logits=theirs,
        alignment=ties,
        config=config(temperature=temperature),
    )
    assert found.item() == pytest.approx(total * temperature**2, rel=1e-5)


@pytest.mark.parametrize("method", ["uld", "spans"])
def test_a_student_that_is_its_teacher_has_no_distance(method):
    same = torch.arange(4)
    ties = aligned(
        student_spans=same,
        teacher_spans=same,
        teacher_tokens=torch.tensor([1, 2, 0, 6]),
        student_outcomes=torch.arange(VOCAB),
        teacher_outcomes=torch.arange(VOCAB),
        num_outcomes=8,
    )
    ours = logits(4, VOCAB).requires_grad_()
    found = cross_distance(
        student_logits=ours,
        labels=ties.teacher_tokens,
        teacher_logits=ours.detach(),
        alignment=ties,
        config=config(method=method),
    )
    assert abs(found.item()) < 1e-6
    (gradient,) = torch.autograd.grad(found, ours)
    assert gradient.abs().max() < 1e-6 or method == "uld"


def test_with_one_vocabulary_the_outcomes_are_forward_kl():
    ours, theirs = logits(4, VOCAB), logits(4, VOCAB, seed=1)
    ties = aligned(
        student_outcomes=torch.arange(VOCAB), teacher_outcomes=torch.arange(VOCAB), num_outcomes=8
    )
    found = outcome_kl(student_logits=ours, teacher_logits=theirs, alignment=ties, temperature=2.0)
    p, q = ((side.double() / 2).log_softmax(-1) for side in (theirs, ours))
    assert found.item() == pytest.approx((p.exp() * (p - q)).sum().item(), rel=1e-5)


@pytest.mark.parametrize("method", ["uld", "spans"])
def test_steps_down_the_gradient_lessen_the_distance(method):
    ours, theirs = logits(6, VOCAB + 2).requires_grad_(), logits(5, THEIRS + 1, seed=1)
    labels = torch.tensor([1, 6, 0, 2, 2, 5])
    optimizer, seen = torch.optim.SGD([ours], lr=0.05), []
    for _ in range(60):
        found = cross_distance(
            student_logits=ours,
            labels=labels,
            teacher_logits=theirs,
            alignment=aligned(),
            config=config(method=method),
        )
        seen.append(found.item())
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    assert seen[-1] < 0.8 * seen[0]
    assert torch.equal(ours[-1], logits(6, VOCAB + 2)[-1])


def test_certain_spans_stay_finite():
    student = torch.tensor([0.0, -200.0, -1e-9], requires_grad=True)
    found = span_kl(student_logs=student, teacher_logs=torch.tensor([-1e-9, -150.0, -2.0]))
    assert found.isfinite()
    (gradient,) = torch.autograd.grad(found, student)
    assert gradient.isfinite().all()


def test_spans_without_a_partner_are_left_out():
    spans = torch.tensor([-1, 0, 0, -1, 1, 2, 2])
    assert find_starts(spans).tolist() == [1, 4, 5]
    assert find_starts(spans[:0]).tolist() == []
    assert merge(torch.arange(7.0), spans, num_spans=3).tolist() == [3.0, 4.0, 11.0]
