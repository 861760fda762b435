"""A student made of experts: their weighted sum, exactly; the most used ones, as counted."""

import numpy as np
import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.initialization.from_experts import (
    find_experts,
    measure_use,
    merge_experts,
    pick_channels,
)
from limbeck.models.batch import pad_rows


def batches():
    rows = [np.array([5, 6, 7, 8, 9]), np.array([10, 11, 12])]
    return [pad_rows(rows, starts=[1, 1], pad=0, record_ids=[0, 1])]


def expert_output(experts, index, x):
    gate, up = (x @ experts.gate_up_proj[index].T).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up) @ experts.down_proj[index].T


def test_use_is_the_mean_gate_weight_and_padding_is_not_counted(moe):
    uses = measure_use(moe, batches=batches())
    assert len(uses) == 2
    for use in uses:
        assert use is not None and use.sum().item() == pytest.approx(1.0, abs=1e-5)
    alone = [
        measure_use(
            moe, batches=[pad_rows([torch.tensor(row).numpy()], starts=[1], pad=0, record_ids=[0])]
        )[0]
        for row in ([5, 6, 7, 8, 9], [10, 11, 12])
    ]
    torch.testing.assert_close(uses[0], (alone[0] * 5 + alone[1] * 3) / 8)


def test_the_layer_is_the_fixed_gate_sum_of_the_taken_experts(moe, dense):
    found = merge_experts(dense, teacher=moe, batches=batches())
    uses = measure_use(moe, batches=batches())
    x = torch.randn(7, 16)
    for layer, experts in enumerate(find_experts(moe)):
        chosen, use = found["experts"][layer], uses[layer]
        assert use is not None and experts is not None
        assert sorted(use.topk(4).indices.tolist()) == chosen
        weights = use[chosen] / use[chosen].sum()
        expected = sum(
            weight * expert_output(experts, index, x)
            for weight, index in zip(weights, chosen, strict=True)
        )
        torch.testing.assert_close(dense.model.layers[layer].mlp(x), expected)
        assert 0 < found["gate_weight_ratios"][layer] <= 1


@pytest.mark.parametrize("intermediate_size", [32, 4])
def test_shared_experts_come_first_at_full_weight(
    moe_config, dense_config, tokenizer, intermediate_size
):
    shared = moe_config.replace(n_shared_experts=1, routed_scaling_factor=1.5)
    teacher = shared.build(tokenizer=tokenizer, seed=0).eval()
    student = dense_config.replace(intermediate_size=intermediate_size).build(
        tokenizer=tokenizer, seed=1
    )
    found = merge_experts(student, teacher=teacher, batches=batches())
    (use, _), (experts, _) = measure_use(teacher, batches=batches()), find_experts(teacher)
    assert use is not None and experts is not None
    assert use.sum().item() == pytest.approx(1.5, abs=1e-5)
    mlp, own = student.model.layers[0].mlp, teacher.model.layers[0].mlp.shared_expert
    if intermediate_size == 4:
        assert found["experts"][0] == []
        kept = [row.tolist() in mlp.gate_proj.weight.tolist() for row in own.gate_proj.weight]
        assert sum(kept) == 4
        return
    chosen = found["experts"][0]
    assert len(chosen) == 3
    x = torch.randn(7, 16)
    weights = 1.5 * use[chosen] / use[chosen].sum()
    expected = own(x) + sum(
        weight * expert_output(experts, index, x)
        for weight, index in zip(weights, chosen, strict=True)
    )
    torch.testing.assert_close(mlp(x), expected, rtol=1e-4, atol=1e-6)


def test_of_the_last_expert_the_strongest_channels_are_taken():
    gate_up, down = torch.ones(2, 6, 4), torch.ones(2, 4, 3)
    down[1, :, 1] = 0.1
    owners, channels, shares = pick_channels(
        torch.tensor([0.75, 0.25]), gate_up=gate_up, down=down, num_channels=5
    )
    assert owners.tolist() == [0, 0, 0, 1, 1]
    assert channels.tolist() == [0, 1, 2, 0, 2]
    assert shares.tolist() == [0.75] * 3 + [0.25] * 2


def test_a_dense_teacher_and_another_width_are_refused(moe, dense, dense_config, tokenizer):
    with pytest.raises(CheckpointError, match="no layer has stacked experts"):
        merge_experts(dense, teacher=dense, batches=batches())
    other = dense_config.replace(hidden_size=24, head_dim=6).build(tokenizer=tokenizer, seed=0)
    with pytest.raises(CheckpointError, match="hidden 16, the student 24"):
        merge_experts(other, teacher=moe, batches=batches())
