"""Quantize: what it reports, and that no training is lost where the codes answer differently."""

import json

import pytest
import torch

from limbeck.contracts.errors import ParityError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.quantization.layers import QuantizedLinear
from limbeck.stages import quantize
from tests.support.artifacts import make_work


@pytest.fixture
def work(tmp_path, corpus, dense_config, tokenizer):
    dense = dense_config.replace(head_dim=16).build(tokenizer=tokenizer, seed=1)
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "student")
    return make_work(tmp_path, "int8", checkpoint=tmp_path / "student", corpus=corpus)


def run(
    work,
    annealing_ratio=0.0,
    smoothing="default",
    gptq="default",
    mixed_precision=None,
    **scheme,
):
    config = quantize.Config.model_validate(
        {
            "stage": "quantize",
            "checkpoint": "student",
            "corpus": "corpus",
            "scheme": {"kind": "int8", **scheme},
            "mixed_precision": mixed_precision,
            "smoothing": smoothing,
            "gptq": gptq,
            "annealing_ratio": annealing_ratio,
            "objective": {"kind": "next_token"},
            "training": {"max_steps": 2, "learning_rate": 1e-3},
        }
    )
    return quantize.run(config, work=work)


@pytest.mark.parametrize("block_size", [32, "row"])
def test_it_reports_what_rounding_costs_and_how_far_the_model_moved(work, block_size):
    metrics = run(work, block_size=block_size)
    assert metrics["parity_logit_difference"] < 1e-4
    assert 0 < metrics["kl_to_floats"] < 0.01
    assert 0 < metrics["kl_to_start"] < 1
    costs = json.loads((work.folder / "rounding.json").read_text())
    for kind, measure in (("blocks", "kl"), ("layers", "error_ratio")):
        first = {item["name"]: item[measure] for item in costs[kind][:3]}
        assert metrics[f"costly_{kind}"] == first and min(first.values()) > 0
    assert not list(work.state.glob("trained"))


@pytest.mark.parametrize(
    ("kind", "smoothing", "gptq", "num_pairs", "num_layers"),
    [
        ("int8", "default", "default", 8, 0),
        ("int8", None, "default", 0, 0),
        ("int4", "default", "default", 0, 14),
        ("int4", {}, None, 8, 0),
        ("ternary", "default", "default", 0, 0),
    ],
)
def test_channels_are_evened_out_and_codes_chosen_where_that_pays(
    kind, smoothing, gptq, num_pairs, num_layers, work
):
    metrics = run(work, kind=kind, smoothing=smoothing, gptq=gptq)
    assert (metrics["smoothed_pairs"], metrics["gptq_layers"]) == (num_pairs, num_layers)


def test_some_layers_get_more_bits_under_a_limit_of_bytes(work):
    mixed = {"max_bytes": 60_000, "formats": [{"kind": "int8"}]}
    metrics = run(work, kind="int4", mixed_precision=mixed)
    found = metrics["layers_by_format"]
    assert found["int8"] > 2 and found["int4"] > 1  # the head is of int8 in any case
    assert found["int4"] == metrics["gptq_layers"]
    model = load_model(work.folder)
    kinds = [item.number_format.kind for item in model.modules() if hasattr(item, "number_format")]
    assert kinds.count("int4") == found["int4"]


def test_codes_are_chosen_after_smoothing(work):
    metrics = run(work, kind="int4", smoothing={}, gptq={"damping_ratio": 0.02})
    assert metrics["smoothed_pairs"] == 8
    assert (metrics["gptq_layers"], metrics["gptq_nearest_layers"]) == (14, 0)
    assert metrics["gptq_error_ratio"] < 0.9


@pytest.mark.parametrize("kind", ["int8", "ternary"])
def test_codes_that_would_not_stay_are_not_chosen(kind, work):
    with pytest.raises(ValueError, match=f"gptq: {kind} finds the scale of chosen codes anew"):
        run(work, kind=kind, gptq={})


@pytest.mark.parametrize("kind", ["int2", "ternary"])
def test_weights_of_two_bits_are_trained_while_rounding_sets_in(kind, work, monkeypatch):
    found = []
    set_rounded_ratio = quantize.set_rounded_ratio

    def note(model, ratio):
        found.append(ratio)
        set_rounded_ratio(model, ratio)

    monkeypatch.setattr(quantize, "set_rounded_ratio", note)
    metrics = run(work, kind=kind, gptq=None, annealing_ratio=1.0)
    assert found == [0.0, 0.5]
    assert metrics["parity_logit_difference"] < 1e-4
    assert metrics["kl_to_floats"] > 0.01


def test_the_trained_weights_are_kept_where_the_codes_answer_differently(work, monkeypatch):
    convert = quantize.convert

    def spoil(model, *, number_format):
        converted = convert(model, number_format=number_format)
        for module in converted.modules():
            if isinstance(module, QuantizedLinear):
                module.weight_scale *= 1.5
        return converted

    monkeypatch.setattr(quantize, "convert", spoil)
    folder = work.state / "trained"
    with pytest.raises(ParityError, match="converted") as raised:
        run(work)
    assert str(folder) in str(raised.value) and "`checkpoint`" in str(raised.value)
    kept = load_model(folder).state_dict()
    start = load_model(work.one("checkpoint").path).state_dict()
    assert kept.keys() == start.keys()
    moved = [not torch.equal(kept[name], start[name]) for name in start]
    assert sum(moved) > 0.9 * len(moved)
    assert all(torch.isfinite(item).all() for item in kept.values())
