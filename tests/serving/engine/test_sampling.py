"""Drawing tokens: the settings mean what they mean elsewhere."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from limbeck.contracts.parity import log_softmax
from limbeck.serving.engine.messages import Sampling
from limbeck.serving.engine.sampling import choose_token, likeliest, make_generators


def draw_many(logits, sampling, *, count=4000):
    uniforms = (np.arange(count) + 0.5) / count
    tokens = [choose_token(logits, sampling=sampling, uniform=value) for value in uniforms]
    return np.bincount(tokens, minlength=len(logits)) / count


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 5, 1.0), (1.0, 0, 0.7), (1.3, 8, 0.5), (1.0, 1, 1.0)],
)
def test_the_distribution_is_that_of_transformers(temperature, top_k, top_p):
    logits = np.random.default_rng(3).normal(size=12) * 2
    scores = torch.tensor(logits)[None]
    warpers = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for warper in warpers:
        scores = warper(None, scores)
    expected = scores.softmax(-1)[0].numpy()
    found = draw_many(log_softmax(logits[None])[0], Sampling(temperature, top_p, top_k))
    assert found == pytest.approx(expected, abs=2e-3)


@given(
    logits=st.lists(st.floats(-30, 30), min_size=1, max_size=20),
    uniform=st.floats(0, 1, exclude_max=True),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 25),
)
def test_it_draws_a_token_that_may_be_drawn(logits, uniform, temperature, top_p, top_k):
    log_probs = log_softmax(np.array([logits]))[0]
    token = choose_token(log_probs, sampling=Sampling(temperature, top_p, top_k), uniform=uniform)
    assert 0 <= token < len(logits)
    if top_k:
        assert token in likeliest(log_probs, count=top_k)


def test_temperature_zero_takes_the_first_of_the_likeliest():
    assert choose_token(np.log([0.2, 0.4, 0.4]), sampling=Sampling(), uniform=0.99) == 1


def test_the_likeliest_are_in_order():
    log_probs = np.array([0.0, 3.0, 1.0, 3.0, 2.0])
    assert likeliest(log_probs, count=3).tolist() == [1, 3, 4]
    assert likeliest(log_probs, count=9).tolist() == [1, 3, 4, 2, 0]


def test_a_seed_gives_the_same_numbers_and_each_answer_its_own():
    first, second = ([g.random() for g in make_generators(7, num_choices=3)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3
