"""Each detector: a case where it speaks, and one where it does not."""

import math

import numpy as np
import pytest
import torch

from limbeck.distillation.diagnostics import checks, probe
from limbeck.distillation.targets import FullLogits, HiddenAndHead, ImportanceSampled, TopK
from limbeck.models.batch import pack_rows, pad_rows


@pytest.mark.parametrize(
    ("share", "weight", "word"),
    [(0.01, 0.5, "raise"), (0.995, 0.5, "lower"), (0.5, 0.5, None), (1.0, 1.0, None)],
)
def test_share(share, weight, word):
    found = checks.check_teacher_share(share, weight=weight)
    assert found is None if word is None else word in found


def test_temperature_has_an_effect_where_the_teacher_doubts():
    torch.manual_seed(0)
    for scale, speaks in ((2.0, False), (1e4, True)):
        output = FullLogits(torch.randn(5, 20) * scale)
        soft, plain = (output.log_probs(vocab=20, temperature=t) for t in (2.0, 1.0))
        found = checks.check_temperature(soft=soft, plain=plain, temperature=2.0)
        assert (found is not None) == speaks
    assert checks.check_temperature(soft=plain, plain=plain, temperature=1.0)


def test_top_tokens_and_even_others_are_the_whole():
    logits = torch.tensor([[3.0, 1.0, -1.0, -1.0, -1.0]])
    tail = (logits[:, 2:] / 2).logsumexp(dim=-1)
    top = TopK(logits[:, :2], torch.tensor([[0, 1]]), tail, temperature=2.0)
    for temperature in (1.0, 2.0):
        one, other = (
            output.log_probs(vocab=5, temperature=temperature)
            for output in (top, FullLogits(logits))
        )
        torch.testing.assert_close(one, other)


def test_a_teacher_that_expects_other_words_shows():
    logs = (torch.eye(50) * 12).log_softmax(dim=-1)
    for labels, speaks in ((torch.arange(50), False), (torch.arange(50).roll(1), True)):
        agreed, ce = checks.top1_agreement(logs, labels=labels)
        assert (checks.check_agreement(agreed=agreed, ce=ce, vocab=50) is not None) == speaks


@pytest.mark.parametrize(
    ("ratio", "fresh", "speaks"),
    [(1.0, True, False), (1.5, True, True), (0.3, False, False), (0.95, False, True)],
)
def test_first_loss(ratio, fresh, speaks):
    found = checks.check_initial_loss(ratio * math.log(100), vocab=100, fresh=fresh)
    assert (found is not None) == speaks


@pytest.mark.parametrize(
    ("rows", "teacher", "word"),
    [(90, 100, "rows for"), (100, 99, "teacher has"), (200, 100, "shrink"), (101, 100, None)],
)
def test_vocabulary(rows, teacher, word):
    found = checks.check_vocab_sizes(
        student_rows=rows, teacher_tokens=teacher, tokenizer_tokens=100
    )
    assert found is None if word is None else word in found


@pytest.mark.parametrize(
    ("answers", "labels", "speaks"),
    [
        ("a" * 30, "abc" * 10, True),
        ("abc" * 10, "abc" * 10, False),
        ("a" * 30, "a" * 30, False),
        ("a" * 5, "abcde", False),
    ],
)
def test_majority(answers, labels, speaks):
    assert (checks.check_answer_collapse(answers, labels=labels) is not None) == speaks


def test_states_and_drawn_tokens_are_the_whole():
    generator = torch.Generator().manual_seed(0)
    states, head = torch.randn(3, 4, generator=generator), torch.randn(12, 4, generator=generator)
    logits = states @ head.T
    logs = (logits / 2).log_softmax(dim=-1)
    # All tokens were drawn, one of them twice, and a place is empty.
    ids = torch.cat([torch.arange(12), torch.tensor([5, 0])]).expand(3, -1)
    weights = torch.ones(3, 14)
    weights[:, -1] = 0
    drawn = ImportanceSampled(ids, weights, logs.gather(1, ids) * weights, temperature=2.0)
    for temperature in (1.0, 2.0):
        wanted = (logits[:, :10] / temperature).log_softmax(dim=-1)
        projected = HiddenAndHead(states, head).log_probs(vocab=10, temperature=temperature)
        assert torch.allclose(projected, wanted, atol=1e-5)
        found = drawn.log_probs(vocab=12, temperature=temperature)
        assert torch.allclose(found, (logits / temperature).log_softmax(dim=-1), atol=1e-4)


def test_tokens_that_were_not_drawn_share_the_rest():
    logs = torch.tensor([[0.5, 0.3]]).log()
    output = ImportanceSampled(torch.tensor([[3, 1]]), torch.full((1, 2), 0.5), logs, 1.0)
    found = output.log_probs(vocab=6, temperature=1.0)
    wanted = torch.tensor([[0.05, 0.3, 0.05, 0.5, 0.05, 0.05]])
    assert torch.allclose(found.exp(), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("likeliest", "labels", "speaks"),
    [
        ([9] * 10, [1, 2] * 5, True),
        ([9] * 10, [9] * 10, False),
        ([9] * 10, [9, 9, 9, 1, 1, 1, 1, 1, 1, 1], False),
        ([9] * 6 + [1, 2, 3, 4], [1, 2] * 5, True),
        ([9] * 4 + [1, 2, 3, 4, 5, 6], [1, 2] * 5, False),
        ([9] * 7, [1] * 7, False),
    ],
)
def test_a_teacher_that_thinks_first(likeliest, labels, speaks):
    found = checks.check_first_tokens(likeliest, labels=labels, show=lambda _: "<think>")
    assert (found is not None) == speaks
    if speaks:
        assert f"{likeliest.count(9)} of 10 answers with '<think>'" in found
        assert "enable_thinking" in found


def test_the_first_token_of_each_answer_is_compared():
    rows = [np.arange(1, 7), np.arange(11, 15)]
    batch = pad_rows(rows, starts=[3, 2], pad=0, record_ids=[0, 1])
    assert batch.targets[probe._opens_answer(batch)].tolist() == [4, 13]
    packed = pack_rows(rows, starts=[3, 2], pad=0, record_ids=[[0, 1]])
    assert packed.targets[probe._opens_answer(packed)].tolist() == [4, 13]
