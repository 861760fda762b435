"""A budget's shares: their proportions, their steps, and what a plan of them is refused for."""

import pytest
from pydantic import ValidationError

from limbeck.training.config import TrainingConfig
from limbeck.training.token_budget import TokenShare, count_steps, report_tokens


def share(phase, **changes):
    return TokenShare(tokens=4_600_000, phase=phase, **changes)


def test_the_default_is_the_references_split():
    tokens = [share(phase).phase_tokens for phase in ("pretrain", "finetune", "reinforce")]
    assert tokens == pytest.approx([4_000_000, 500_000, 100_000])


def test_steps_read_the_share_to_within_half_a_step():
    for phase in ("pretrain", "finetune", "reinforce"):
        steps = count_steps(share(phase), tokens_per_step=1234.5)
        assert abs(steps * 1234.5 - share(phase).phase_tokens) <= 1234.5 / 2


def test_at_least_one_step_and_numbers_stay():
    assert count_steps(share("reinforce"), tokens_per_step=1e9) == 1
    assert count_steps(7, tokens_per_step=3.0) == 7


def test_other_shares_and_what_was_read():
    custom = share("warm", shares={"warm": 3.0, "rest": 1.0})
    assert custom.ratio == 0.75
    found = report_tokens(custom, seen_tokens=2_300_000)
    assert found["budget_seen_ratio"] == 0.5
    assert report_tokens(3, seen_tokens=10) == {"tokens_seen": 10}


def test_training_resolves_to_a_number_and_survives_a_round_trip():
    config = TrainingConfig.model_validate({"max_steps": {"tokens": 46000, "phase": "finetune"}})
    assert TrainingConfig.model_validate(config.model_dump()) == config
    assert config.resolve_steps(tokens_per_step=100.0).max_steps == 50


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"tokens": 10, "phase": "finetun"}, "did you mean 'finetune'"),
        ({"tokens": 0, "phase": "finetune"}, "greater than 0"),
        ({"tokens": 10, "phase": "a", "shares": {"a": 0}}, "greater than 0"),
        ({"tokens": 10, "phase": "a", "shares": {}}, "at least 1 item"),
        ({"tokens": 10, "phase": "pretrain", "share": 3}, "unknown key"),
        (0, "greater than 0"),
        ("many", "valid integer"),
    ],
)
def test_bad_steps(steps, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate({"max_steps": steps})
