"""Sampling: greedy at no temperature, the model's own distribution at one, blind to padding."""

import pytest
import torch

from limbeck.contracts.errors import TrainingError
from limbeck.models.generation import draw_tokens, sample
from limbeck.objectives.next_token import token_logs

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5], [11]]


def draw(model, *, seed=0, prompts=PROMPTS, **changes):
    settings = {
        "num_samples": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_new_tokens": 6,
        "end_ids": (3,),
    } | changes
    return sample(model, prompts, generator=torch.Generator().manual_seed(seed), **settings)


def test_at_no_temperature_it_is_greedy(moe):
    found = draw(moe, temperature=1e-4, num_samples=1, end_ids=())
    for prompt, answer in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        expected = moe.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert list(answer.tokens) == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_cached_log_probabilities_are_recomputed_ones(temperature, moe):
    found = draw(moe, temperature=temperature)
    asked = [prompt for prompt in PROMPTS for _ in range(4)]
    for prompt, answer in zip(asked, found, strict=True):
        ids = torch.tensor([[*prompt, *answer.tokens]])
        with torch.no_grad():
            logits = moe(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        logs = token_logs(logits, torch.tensor(answer.tokens), temperature=temperature)
        torch.testing.assert_close(torch.tensor(answer.logs), logs, rtol=1e-4, atol=1e-4)


def test_the_first_token_follows_the_models_distribution(dense):
    count = 4000
    found = draw(dense, prompts=[PROMPTS[0]], num_samples=count, max_new_tokens=1, end_ids=())
    with torch.no_grad():
        expected = dense(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    seen = torch.bincount(torch.tensor([item.tokens[0] for item in found]), minlength=len(expected))
    wanted = expected * count
    common = wanted >= 5
    statistic = ((seen - wanted)[common].square() / wanted[common]).sum()
    freedom = int(common.sum())
    # Mean and standard deviation of chi-square; five of them are not chance.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_top_p_cuts_the_tail_and_keeps_the_rest_in_proportion():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(2000, -1)
    uniform = torch.linspace(0, 1 - 1e-9, 2000, dtype=torch.float64)
    tokens, logs = draw_tokens(logits, uniform=uniform, temperature=1.0, top_p=0.75)
    shares = torch.bincount(tokens, minlength=4) / 2000
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=1e-3, rtol=0)
    assert logs[0].exp().item() == pytest.approx(0.5)


def test_answers_end_and_do_not_depend_on_the_others(moe):
    found = draw(moe, max_new_tokens=40, end_ids=(7,), num_samples=16)
    assert any(item.ended for item in found) and len({len(item.tokens) for item in found}) > 2
    for item in found:
        assert item.ended == (item.tokens[-1] == 7)
        assert 7 not in item.tokens[:-1]
        assert item.ended or len(item.tokens) == 40
    assert draw(moe, max_new_tokens=40, end_ids=(7,), num_samples=16) == found
    assert draw(moe, max_new_tokens=40, end_ids=(7,), num_samples=16, seed=1) != found


def test_the_model_is_left_as_it_was(moe):
    moe.train()
    bias = [layer.mlp.gate.balance_bias.clone() for layer in moe.model.layers]
    draw(moe)
    assert moe.training
    assert all(
        torch.equal(layer.mlp.gate.balance_bias, before)
        for layer, before in zip(moe.model.layers, bias, strict=True)
    )


def test_a_diverged_model_is_named(dense):
    with torch.no_grad():
        dense.model.norm.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="logits are not finite"):
        draw(dense)
