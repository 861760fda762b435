"""What a student missed: by expert it adds up to the whole, and nothing is missed of oneself."""

import pytest
import torch

from limbeck.distillation.diagnostics.expert_gap import find_largest_gap, measure_expert_gap
from limbeck.models.batch import pad_rows
from limbeck.models.forward import KeptForward

BATCHES = [
    pad_rows([torch.tensor(row).numpy()], starts=[1], pad=0, record_ids=[0])
    for row in ([5, 6, 7, 8, 9], [10, 11, 12])
]


def test_experts_add_up_to_the_plain_mean(moe, dense):
    found = measure_expert_gap(dense, moe, BATCHES, vocab=40)
    assert [sum(counts) for counts in found["tokens"]] == [6, 6]
    total, firsts = 0.0, []
    with torch.no_grad():
        for batch in BATCHES:
            theirs = KeptForward(moe)(batch)
            p = theirs.logits[:, :40].double().log_softmax(-1)
            q = KeptForward(dense)(batch).logits[:, :40].double().log_softmax(-1)
            total += float((p.exp() * (p - q)).sum())
            firsts.append(theirs.routing[1].picked[batch.kept.reshape(-1), 0])
    assert found["kl"] == pytest.approx(total / 6, rel=1e-4)
    for kls, counts in zip(found["layers"], found["tokens"], strict=True):
        summed = sum(kl * count for kl, count in zip(kls, counts, strict=True))
        assert summed == pytest.approx(total, rel=1e-4)
    assert found["tokens"][1] == torch.bincount(torch.cat(firsts), minlength=8).tolist()
    most = find_largest_gap(found)
    assert found["layers"][most["layer"] - 1][most["expert"]] == most["kl"]
    assert not moe.model.layers[0].mlp.gate._forward_hooks


def test_nothing_is_missed_of_oneself_or_of_a_dense_teacher(moe, dense):
    assert measure_expert_gap(moe, moe, BATCHES, vocab=40)["kl"] == pytest.approx(0, abs=1e-6)
    assert measure_expert_gap(moe, dense, BATCHES, vocab=40) is None
    assert measure_expert_gap(dense, moe, [], vocab=40) is None
