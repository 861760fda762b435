"""What is said to fit does, with the least change; what does not names what would."""

import dataclasses

import pytest
from pydantic import ValidationError
from transformers import Qwen3Config, Qwen3MoeConfig

from limbeck.sizing.assumptions import Assumptions
from limbeck.sizing.cards import GPUS, Cards, Serving
from limbeck.sizing.fit import (
    count_cards,
    find_larger_card,
    fit_serving,
    fit_training,
    least_workload,
)
from limbeck.sizing.hardware import decode_tokens_per_second, training_tokens_per_second
from limbeck.sizing.memory import Workload, training_memory
from limbeck.sizing.parameters import size_model

TWO = Cards(gpu="A100-40GB", count=2)
WORK = Workload(16, 512, "bfloat16", "none")


def dense(layers, hidden=2048):
    return size_model(
        Qwen3Config(
            vocab_size=32768,
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 128,
            num_key_value_heads=8,
            head_dim=128,
        ),
        context_tokens=512,
    )


@pytest.fixture(scope="module")
def reference():
    config = Qwen3MoeConfig(
        vocab_size=32768,
        hidden_size=8192,
        num_hidden_layers=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=2,
        moe_intermediate_size=7632,
    )
    return size_model(config, context_tokens=512)


@pytest.mark.parametrize("layers", [1, 8, 16, 28, 48, 80])
def test_what_fits_fits_and_needs_its_changes(layers):
    size = dense(layers)
    fit = fit_training(size, WORK, TWO)
    assert fit is not None
    again = training_memory(size, fit.workload, layout=fit.memory.layout, num_cards=2)
    assert again == fit.memory
    assert fit.memory.total <= TWO.card.usable_bytes
    as_it_is = training_memory(size, WORK, layout="ddp", num_cards=2).total
    assert bool(fit.changes) == (as_it_is > TWO.card.usable_bytes)
    for unchanged in ({"records": 16}, {"recomputing": "none"}):
        undone = dataclasses.replace(fit.workload, **unchanged)
        if undone != fit.workload:
            left = training_memory(size, undone, layout=fit.memory.layout, num_cards=2).total
            assert left > TWO.card.usable_bytes


def test_larger_models_take_more_changes():
    changes = [len(fit_training(dense(layers), WORK, TWO).changes) for layers in (1, 28, 80)]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[-1] > 1


def test_one_card_divides_nothing():
    fit = fit_training(dense(40), WORK, Cards(gpu="A100-40GB", count=1))
    assert fit.memory.layout in ("ddp", "zero2_offload", "zero3_offload")


def test_a_live_teacher_gives_way_to_its_signals():
    beside = dataclasses.replace(WORK, frozen_bytes=10**11)
    fit = fit_training(dense(8), beside, TWO)
    assert fit.workload.frozen_bytes == 0
    assert "recorded signals instead of the live teacher" in fit.changes


def test_the_reference_needs_its_experts_apart(reference):
    assert fit_training(reference, WORK, TWO) is None
    needed = count_cards(reference, WORK, "A100-40GB")
    assert needed.experts_divided
    least = least_workload(WORK)
    held = [
        training_memory(reference, least, layout="zero3", num_cards=count, experts="divided").total
        for count in (needed.count, needed.count - 1)
    ]
    assert held[0] <= TWO.card.usable_bytes < held[1]
    # The state alone is 16 bytes a parameter.
    assert needed.count > 16 * reference.parameters / 40e9
    whole = training_memory(reference, least, layout="zero3", num_cards=10**9)
    assert whole.total > TWO.card.usable_bytes
    larger = find_larger_card(reference, WORK, TWO.card)
    assert larger is None or not larger.experts_divided


def test_cards_are_counted_to_the_last_one():
    size = dense(40, hidden=4096)
    needed = count_cards(size, WORK, "V100-16GB")
    held = [
        training_memory(size, least_workload(WORK), layout="zero3", num_cards=count).total
        for count in (needed.count, needed.count - 1)
    ]
    assert held[0] <= GPUS["V100-16GB"].usable_bytes < held[1]


def test_answering_fits_in_some_formats_or_names_what_would(reference):
    small = fit_serving(dense(28), Serving(gpu="T4-16GB"))
    assert small.fitting == ("float32", "bfloat16", "int8", "int4", "int2", "ternary")
    six = fit_serving(dense(36, hidden=4096), Serving(gpu="T4-16GB"))
    assert "float32" not in six.fitting
    assert "int8" in six.fitting
    huge = fit_serving(reference, Serving(gpu="T4-16GB"))
    assert huge.fitting == ()
    assert huge.context_tokens == 0
    assert 0 < huge.kept_ratio < 0.1
    name, on_card, in_ram = huge.offloaded
    assert on_card <= GPUS["T4-16GB"].usable_bytes
    assert in_ram == next(item.expert_bytes for item in reference.formats if item.name == name)
    many = Serving(gpu="T4-16GB", count=huge.count)
    assert "ternary" in fit_serving(reference, many).fitting
    fewer = Serving(gpu="T4-16GB", count=huge.count - 1)
    assert fit_serving(reference, fewer).fitting == ()


def test_a_shorter_context_is_found_to_the_token():
    size = dense(28)
    serving = Serving(gpu="T4-16GB", batch_size=64, context_tokens=16384)
    fit = fit_serving(size, serving)
    assert fit.fitting == ()
    for tokens, fits in ((fit.context_tokens, True), (fit.context_tokens + 8, False)):
        again = fit_serving(size, serving.replace(context_tokens=tokens))
        assert bool(again.fitting) == fits


def test_decoding_reads_only_the_picked_experts(reference):
    stored = reference.formats[1]
    one = Serving(gpu="H200-141GB", context_tokens=1)
    rate = decode_tokens_per_second(reference, stored, one)
    read = 2 * reference.active_parameters
    assert rate == pytest.approx(0.6 * 4.8e12 / read, rel=0.05)
    crowd = decode_tokens_per_second(reference, stored, one.replace(batch_size=64))
    assert rate < crowd < 64 * rate


def test_training_rates_follow_cards_precision_and_recomputing():
    size = dense(28)

    def rate(gpu="A100-40GB", count=1, precision="bfloat16", recomputing="none"):
        return training_tokens_per_second(
            size, Cards(gpu=gpu, count=count), precision=precision, recomputing=recomputing
        )

    assert rate(count=8) == pytest.approx(8 * rate())
    assert rate(recomputing="layers") == pytest.approx(0.75 * rate())
    assert rate(precision="float32") == pytest.approx(rate() * 19.5 / 312)
    # A V100 has no bfloat16 products.
    assert rate("V100-16GB") == rate("V100-16GB", precision="float32")


@pytest.mark.parametrize("gpu", GPUS)
def test_cards_figures_are_of_one_order(gpu):
    card = GPUS[gpu]
    assert card.usable_bytes < card.memory_bytes
    assert card.half_flops > card.float_flops > 1e12
    assert str(card.memory_bytes // 10**9) in gpu


@pytest.mark.parametrize(
    ("assumed", "message"),
    [
        ({"training": {"gpu": "A100-40G"}}, "did you mean 'A100-40GB'"),
        ({"training": {"gpu": "A100-40GB", "count": 0}}, "greater than 0"),
        ({"inference": {"gpu": "T4-16GB", "context_tokens": -1}}, "greater than 0"),
        ({"size_targets_bytes": {"edge": 0}}, "greater than 0"),
        ({"vocab": 0}, "greater than 0"),
        ({"trainig": {}}, "unknown key"),
    ],
)
def test_wrong_assumptions_are_refused(assumed, message):
    with pytest.raises(ValidationError, match=message):
        Assumptions.model_validate(assumed)
