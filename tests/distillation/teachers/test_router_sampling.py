"""Drawn experts: by the router's probabilities, as heavy as picked ones, mixed exactly."""

import pytest
import torch
from transformers import AutoModelForCausalLM, OlmoeConfig

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.targets import FullLogits
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.distillation.teachers.router_sampling import (
    RouterSamplingTeacher,
    _resample,
    _use_generator,
    find_gates,
    sample_experts,
)
from limbeck.models.batch import pad_rows

BATCH = pad_rows(
    [torch.tensor(row).numpy() for row in ([5, 6, 7, 8, 9], [10, 11, 12])],
    starts=[1, 1],
    pad=0,
    record_ids=[0, 1],
)


def logits_of(teacher):
    output = teacher(BATCH).output
    assert isinstance(output, FullLogits)
    return output.logits


def test_draws_follow_the_probabilities_without_replacement():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = sample_experts(probabilities.log().expand(20_000, 4), picks=2, generator=generator)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    found = torch.bincount(drawn[:, 0], minlength=4) / len(drawn)
    # Three standard errors of the largest share.
    torch.testing.assert_close(found, probabilities, rtol=0, atol=0.011)


@pytest.mark.parametrize("family", ["limbeck_moe", "olmoe"])
def test_drawn_experts_weigh_together_what_the_picked_ones_did(family, moe):
    model = moe
    if family == "olmoe":
        sizes: dict = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 8}
        config = OlmoeConfig(
            **sizes,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_experts=8,
            num_experts_per_tok=2,
            pad_token_id=0,
            eos_token_id=1,
        )
        model = AutoModelForCausalLM.from_config(config).eval()
    gates = find_gates(model)
    assert [layer for layer, _ in gates] == [0, 1]
    _, gate = gates[0]
    handle = gate.register_forward_hook(_resample)
    x = torch.randn(50, 16)
    own = gate(x)
    with _use_generator(torch.Generator().manual_seed(0)):
        drawn = gate(x)
    handle.remove()
    weights, picked = (3, 2) if family == "limbeck_moe" else (1, 2)
    torch.testing.assert_close(drawn[weights].sum(-1), own[weights].sum(-1))
    assert drawn[picked].shape == own[picked].shape
    assert (drawn[picked].sort(-1).values != own[picked].sort(-1).values).any()


def test_the_output_is_the_mean_of_all_passes_at_the_temperature(moe):
    live = OnlineTeacher(moe, vocab=40)
    own = (logits_of(live)[:, :40] / 2).softmax(-1).double()
    teacher = RouterSamplingTeacher(live, moe, num_samples=2, temperature=2.0)
    passes: list[torch.Tensor] = []
    log_probs = teacher._log_probs
    teacher._log_probs = lambda output: passes.append(log_probs(output)) or passes[-1]  # pyright: ignore[reportAttributeAccessIssue]
    found = (logits_of(teacher) / 2).softmax(-1).double()
    assert len(passes) == 3
    torch.testing.assert_close(passes[0].exp().double(), own, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(passes[1], passes[0], atol=1e-3)
    mean = torch.stack(passes).double().exp().mean(0)
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-7)
    assert torch.equal(logits_of(teacher), logits_of(teacher))


def test_without_draws_the_router_decides(moe):
    live = OnlineTeacher(moe, vocab=40)
    before = logits_of(live)
    RouterSamplingTeacher(live, moe, num_samples=1, temperature=1.0)
    assert torch.equal(logits_of(live), before)


def test_closing_takes_the_hooks_off_the_routers(moe):
    live = OnlineTeacher(moe, vocab=40)
    gates = [gate for _, gate in find_gates(moe)]
    before = [len(gate._forward_hooks) for gate in gates]
    teacher = RouterSamplingTeacher(live, moe, num_samples=1, temperature=1.0)
    assert [len(gate._forward_hooks) for gate in gates] == [count + 1 for count in before]
    teacher.close()
    assert [len(gate._forward_hooks) for gate in gates] == before


def test_a_dense_teacher_is_refused(dense):
    with pytest.raises(CheckpointError, match="has no router"):
        RouterSamplingTeacher(OnlineTeacher(dense, vocab=40), dense, num_samples=1, temperature=1.0)
