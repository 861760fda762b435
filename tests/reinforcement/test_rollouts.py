"""Rollouts: rewards that a rule can check, batches that hold what was said, runs that resume."""

import logging

import pytest
import torch

from limbeck.contracts.records import AnswerFormat
from limbeck.contracts.registry import REWARDS
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.reinforcement.config import Grpo
from limbeck.reinforcement.rewards import AnswerSample, find_reward, score
from limbeck.reinforcement.rollouts import IDLE_STEPS, RolloutPrompt, Rollouts, TokenizerIO
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit

ANSWER_FORMAT = AnswerFormat("、", "不知道。")
SPEECH = TokenizerIO(lambda tokens: "".join(chr(64 + token % 26) for token in tokens), (3,), 0)


def reward(name, text, expected="头晕、心悸", *, ended=True, agreement=0.5):
    said = AnswerSample(text, ended, expected, agreement)
    return find_reward(name).rate(said, answer_format=ANSWER_FORMAT)


@pytest.mark.parametrize(
    ("name", "text", "expected", "value"),
    [
        ("facts", "头晕", "头晕、心悸", 0.5),
        ("refusal", "不知道。", "不知道。", 1),
        ("refusal", "不知道", "不知道。", 1),
        ("refusal", "头晕", "不知道。", 0),
        ("refusal", "不知道。", "头晕", 0),
        ("refusal", "胃痛", "头晕", 1),
        ("form", "头晕、心悸", "头晕、心悸", 1),
        ("form", "头晕、头晕", "头晕、心悸", 0),
        ("form", "头晕，心悸", "头晕、心悸", 0),
        ("form", "", "头晕", 0),
        ("form", "头晕、", "头晕", 0),
        ("brevity", "头晕", "头晕、心悸", 1),
        ("brevity", "头晕、心悸头晕、心悸", "头晕、心悸", 0.5),
        ("brevity", "", "头晕", 0),
    ],
)
def test_rewards(name, text, expected, value):
    assert reward(name, text, expected) == value


def test_an_answer_that_does_not_end_has_no_form():
    assert reward("form", "头晕", ended=False) == 0


def test_the_reward_is_the_weighted_sum_and_each_lies_between_zero_and_one():
    said = AnswerSample("头晕", True, "头晕、心悸", 2 / 3)
    weights = dict(zip(REWARDS, (1.0, 2.0, 3.0, 4.0), strict=True))
    found = score(said, answer_format=ANSWER_FORMAT, weights=weights)
    total = sum(weights[name] * found[name] for name in weights)
    assert found["reward"] == pytest.approx(total)
    assert all(0 <= found[name] <= 1 for name in weights)
    assert list(score(said, answer_format=ANSWER_FORMAT, weights={"facts": 2.0})) == [
        "reward",
        "facts",
    ]


def make_rollouts(model, *, reward_function=None, seed=0, **changes):
    config = Grpo(kind="grpo", **({"num_generations": 3, "max_completion_length": 5} | changes))
    prompts = [RolloutPrompt([5 + n, 6, 7][: 1 + n % 3], "C" * n) for n in range(8)]
    return Rollouts(
        config,
        model=model,
        reference=model,
        prompts=lambda step: [prompts[(2 * step + n) % 8] for n in range(2)],
        reward_function=reward_function
        or (lambda text, ended, expected: {"reward": float(text.count("A"))}),
        tokenizer_io=SPEECH,
        num_parts=2,
        seed=seed,
    )


def test_batches_hold_what_was_sampled(moe):
    rollouts = make_rollouts(moe)
    batches = rollouts(0)
    assert sorted(row for batch in batches for row in batch.record_ids.tolist()) == list(range(6))
    for batch in batches:
        targets = batch.targets
        known = rollouts.experience_of(batch)
        assert len(known.old_logs) == len(targets) == len(known.advantages)
        with torch.no_grad():
            logits = KeptForward(moe)(batch).logits
        logs = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        torch.testing.assert_close(known.old_logs, logs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(known.reference_logs, logs, rtol=1e-4, atol=1e-4)
    advantages = torch.tensor(rollouts.current_rollouts["advantages"]).view(2, 3)
    torch.testing.assert_close(advantages.sum(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    assert rollouts.curve[0]["rollout_tokens"] == sum(int(batch.tokens.sum()) for batch in batches)


def test_a_step_is_a_function_of_weights_seed_and_step(moe):
    first, again, other = (make_rollouts(moe, seed=seed) for seed in (0, 0, 1))
    rows = [item(4) and item.current_rollouts["rows"] for item in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert first(5) and first.current_rollouts["rows"] != rows[0]


def test_answers_serve_as_many_steps_as_asked(moe):
    rollouts = make_rollouts(moe, num_iterations=2)
    rows = [rollouts(step) and rollouts.current_rollouts["rows"] for step in range(4)]
    assert rows[0] == rows[1] != rows[2] == rows[3]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_equals_the_uninterrupted_one(stop, moe_config, tokenizer, tmp_path):
    def train(model, state, *, stop=None):
        rollouts = make_rollouts(model, num_iterations=2)
        # The start is the reference; here the model itself moves, so keep a copy of it.
        rollouts.reference = KeptForward(moe_config.build(tokenizer=tokenizer, seed=0).eval())

        def source(step):
            if step == stop:
                raise KeyboardInterrupt
            return rollouts(step)

        objective = rollouts.config.build(
            ObjectiveContext(rollouts.model, experience=rollouts.experience_of)
        )
        config = TrainingConfig(
            max_steps=5,
            learning_rate=0.01,
            warmup_steps=0,
            save_interval_seconds=0,
            logging_steps=1,
        )
        history = fit(
            model,
            batches=source,
            objective=objective,
            config=config,
            state=state,
            title="test",
            stateful=rollouts,
        )
        weights = torch.cat([item.detach().flatten() for item in model.state_dict().values()])
        return history, rollouts.curve, weights

    expected = train(moe_config.build(tokenizer=tokenizer, seed=0), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(moe_config.build(tokenizer=tokenizer, seed=0), tmp_path / "b", stop=stop)
    found = train(moe_config.build(tokenizer=tokenizer, seed=0), tmp_path / "b")
    assert found[:2] == expected[:2]
    assert torch.equal(found[2], expected[2])
    biases = moe_config.build(tokenizer=tokenizer, seed=0).model.layers[0].mlp.gate.balance_bias
    assert biases.abs().max() == 0 and len(expected[1]) == 5


def test_training_raises_the_reward(moe_config, tokenizer, tmp_path):
    """A reward for one token makes it common, and the divergence from the start grows."""
    model = moe_config.build(tokenizer=tokenizer, seed=0)
    reference = moe_config.build(tokenizer=tokenizer, seed=0).eval()

    def reward_function(text, ended, expected):
        return {"reward": text.count("A") / max(1, len(text))}

    rollouts = make_rollouts(model, reward_function=reward_function, num_generations=16)
    rollouts.reference = KeptForward(reference)
    config = TrainingConfig(max_steps=30, learning_rate=0.02, warmup_steps=0, logging_steps=1)
    history = fit(
        model,
        batches=rollouts,
        config=config,
        state=tmp_path,
        title="test",
        objective=rollouts.config.build(
            ObjectiveContext(rollouts.model, experience=rollouts.experience_of)
        ),
        stateful=rollouts,
    )
    rewards = [point["reward_mean"] for point in rollouts.curve]
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5])
    assert history[-1]["kl"] > history[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert max(model.model.layers[0].mlp.gate.balance_bias.abs()) > 0


def test_equal_rewards_for_long_are_warned_of(moe, caplog):
    rollouts = make_rollouts(
        moe,
        reward_function=lambda *_: {"reward": 1.0},
        max_completion_length=1,
        num_iterations=IDLE_STEPS,
    )
    with caplog.at_level(logging.WARNING):
        for step in range(IDLE_STEPS):
            assert not caplog.records
            rollouts(step)
    assert "raise temperature or num_generations" in caplog.text
    assert set(rollouts.current_rollouts["advantages"]) == {0.0}
