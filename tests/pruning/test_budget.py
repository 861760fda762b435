"""As few channels go as a budget takes: one multiple more would not fit."""

import pytest
from pydantic import ValidationError
from transformers import LlamaConfig

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.pruning.budget import Budget, fit_channels
from limbeck.pruning.shapes import describe_cut
from limbeck.stages import prune
from tests.support.artifacts import make_work

LLAMA = LlamaConfig(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
SHARES = {"stage": "prune", "checkpoint": "student", "corpus": "corpus"}


@pytest.mark.parametrize(
    ("unit", "settings"),
    [
        ("parameters", {}),
        ("bytes", {}),
        ("bytes", {"number_format": "int8"}),
        ("flops", {}),
        ("flops", {"context_tokens": 32}),
    ],
)
@pytest.mark.parametrize("share", [0.85, 0.93])
def test_one_multiple_more_would_not_fit(unit, settings, share):
    whole = Budget(unit=unit, at_most=1, **settings).measure(LLAMA)
    budget = Budget(unit=unit, at_most=share * whole, **settings)
    kept = fit_channels(LLAMA, budget=budget, multiple=8, num_kept={})
    assert kept % 8 == 0
    assert 8 <= kept < 96
    for channels, fits in ((kept, True), (kept + 8, False)):
        cut = describe_cut(LLAMA, num_kept={"channels": channels})
        assert (budget.measure(cut) <= budget.at_most) == fits


def test_parameters_are_counted_by_hand():
    whole = 2 * 100 * 32 + 2 * (3 * 32 * 96 + 32 * 32 * 2 + 32 * 16 * 2 + 2 * 32) + 32
    budget = Budget(unit="parameters", at_most=whole - 2 * 3 * 32 * 16)
    assert fit_channels(LLAMA, budget=budget, multiple=8, num_kept={}) == 80
    fewer_layers = fit_channels(LLAMA, budget=budget, multiple=8, num_kept={"layers": 1})
    assert fewer_layers == 96


def test_what_no_cut_of_channels_reaches_is_refused():
    budget = Budget(unit="parameters", at_most=5000)
    with pytest.raises(CheckpointError, match=r"even with 8 of 96 channels.*cut heads"):
        fit_channels(LLAMA, budget=budget, multiple=8, num_kept={})
    with pytest.raises(CheckpointError, match="lower the multiple"):
        fit_channels(LLAMA, budget=budget, multiple=96, num_kept={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels_ratio": 0.2}, "leave one of them out"),
        ({"budget": {"unit": "flops", "at_most": 9, "number_format": "int8"}}, "unit: bytes"),
        ({"budget": {"unit": "seconds", "at_most": 9}}, "parameters"),
        (
            {"budget": {"unit": "bytes", "at_most": 9, "number_format": "int9"}},
            "unknown format 'int9'.*int8",
        ),
    ],
)
def test_wrong_settings_are_named(changes, message):
    given = SHARES | {"budget": {"unit": "parameters", "at_most": 9}} | changes
    with pytest.raises(ValidationError, match=message):
        prune.Config.model_validate(given)


def test_a_budget_that_is_kept_already_is_refused():
    config = prune.Config.model_validate(
        SHARES | {"budget": {"unit": "parameters", "at_most": 1e9}}
    )
    with pytest.raises(CheckpointError, match="none would be cut"):
        config.resolve_budget(LLAMA)


def test_the_stage_keeps_to_it(tmp_path, corpus, dense, tokenizer):
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "student")
    work = make_work(tmp_path, "pruned", checkpoint=tmp_path / "student", corpus=corpus)
    most = dense.num_parameters() - 2 * 3 * 16 * 4 + 10
    config = prune.Config.model_validate(
        SHARES | {"multiple": 4, "budget": {"unit": "parameters", "at_most": most}}
    )
    metrics = prune.run(config, work=work)
    assert metrics["channels_kept"] == load_model(work.folder).config.intermediate_size == 28
    assert most - 2 * 3 * 16 * 4 < metrics["parameters"] <= most
