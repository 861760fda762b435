"""Experts are scored by what they add, and a model without some routes to the others as before."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import pad_rows
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.logit_parity import compare_models, compute_logits
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import RandomScores, Reap, score_groups
from limbeck.pruning.experts import find_experts, route_to, sum_by_expert
from limbeck.pruning.surgery import cut
from limbeck.stages import prune
from tests.support.artifacts import make_work
from tests.support.families import make_family

MEASURE = "max_logit_difference / max_logit"


def make_batch():
    rows = [np.array([3, 4, 5, 6, 9]), np.array([7, 8])]
    return pad_rows(rows, starts=[0, 0], pad=0, record_ids=[0, 1])


def score(model, *, criterion):
    layers = find_experts(model)
    found = calibrate(model, layers=layers, batches=[make_batch()], needs=criterion.needs)
    return {
        groups: score_groups(model, groups=groups, criterion=criterion, calibration=item)
        for groups, item in found.items()
    }


def test_sums_go_to_each_tokens_experts():
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    totals, counts = sum_by_expert(values, picked=torch.tensor([[2, 0], [0, 3]]), num_experts=4)
    assert totals.tolist() == [6, 0, 1, 8]
    assert counts.tolist() == [2, 0, 1, 1]


def test_reap_is_weight_times_norm_over_the_experts_own_tokens(moe):
    batch, seen = make_batch(), []
    layer = moe.model.layers[1].mlp
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    scores = score(moe, criterion=Reap())
    handle.remove()
    gate_up, down = layer.experts.gate_up_proj, layer.experts.down_proj
    sums, counts = torch.zeros(8), torch.zeros(8)
    for hidden in seen[0][batch.tokens]:
        probabilities = (layer.gate.weight @ hidden).softmax(0)
        top = probabilities.topk(2)
        for weight, expert in zip(top.values / top.values.sum(), top.indices, strict=True):
            gate, up = (gate_up[expert] @ hidden).chunk(2)
            sums[expert] += weight * (down[expert] @ (torch.nn.functional.silu(gate) * up)).norm()
            counts[expert] += 1
    expected = (sums / counts.clamp_min(1)).detach()
    assert (expected == 0).any() or counts.min() > 0
    torch.testing.assert_close(scores[find_experts(moe)[1]], expected)


@pytest.mark.parametrize("family", ["Qwen2-MoE", "Qwen3-MoE", "Mixtral", "OLMoE"])
def test_stock_mixtures_answer_as_if_routed_to_the_kept_experts(family, tmp_path):
    model = load_model(make_family(tmp_path / "whole", name=family)).float().eval()
    layers = find_experts(model)
    num = layers[0].num_groups
    scores = score(model, criterion=Reap())
    assert all(0 < item.max() < float("inf") for item in scores.values())
    kept = {groups: tuple(range(groups.layer, num, 2))[:3] for groups in layers}
    ids = torch.randint(0, 500, (2, 7), generator=torch.Generator().manual_seed(0))
    before = compute_logits(model, input_ids=ids)
    smaller = cut(model, kept=kept)
    with route_to(model, kept=kept):
        assert compare_models(model, smaller, input_ids=ids).figure(MEASURE) <= 1e-6
    after = compute_logits(model, input_ids=ids)
    assert np.array_equal(before, after)
    assert np.abs(before - compute_logits(smaller, input_ids=ids)).max() > 1e-2
    smaller.save_pretrained(tmp_path / "cut")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    assert again.num_parameters() == smaller.num_parameters() < model.num_parameters()
    assert np.array_equal(
        compute_logits(again, input_ids=ids), compute_logits(smaller, input_ids=ids)
    )


@pytest.mark.parametrize(
    ("family", "fault"),
    [("DeepSeek-V3", "some of 2 groups of experts"), ("gpt-oss", "gate_up_proj_bias|no layer has")],
)
def test_other_mixtures_are_refused(family, fault, tmp_path):
    model = load_model(make_family(tmp_path / "whole", name=family))
    with pytest.raises(CheckpointError, match=fault):
        find_experts(model)


def test_a_dense_model_has_none(dense):
    with pytest.raises(CheckpointError, match=r"no layer has `mlp\.experts`"):
        find_experts(dense)


def test_the_stage_cuts_experts(tmp_path, corpus, moe, tokenizer):
    moe.model.layers[0].mlp.gate.balance_bias.copy_(torch.linspace(-0.1, 0.1, 8))
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")
    work = make_work(tmp_path, "pruned", checkpoint=tmp_path / "teacher", corpus=corpus)
    settings = {"stage": "prune", "checkpoint": "teacher", "corpus": "corpus", "channels_ratio": 0}
    config = prune.Config.model_validate(settings | {"experts_ratio": 0.25})
    metrics = prune.run(config, work=work)
    assert metrics["experts_kept"] == load_model(work.folder).config.num_experts == 6
    assert metrics["experts_cut_ratio"] == 0.25


def test_random_scores_experts(moe):
    first, second = score(moe, criterion=RandomScores()).values()
    assert first.shape == (8,)
    assert not torch.equal(first, second)


def test_as_many_stay_as_a_token_picks(moe):
    with pytest.raises(CheckpointError, match="experts would stay and a token picks 2"):
        cut(moe, kept=dict.fromkeys(find_experts(moe), (3,)))
