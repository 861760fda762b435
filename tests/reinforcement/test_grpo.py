"""DPO and GRPO: what must be zero is zero, padding changes nothing, and TRL says the same."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.next_token import token_logs
from limbeck.reinforcement.config import Dpo, Grpo
from limbeck.reinforcement.dpo import dpo_loss, sum_rows
from limbeck.reinforcement.grpo import Experience, group_advantages, grpo_loss, weigh_tokens

VOCAB = 30
CLIP = {"epsilon": 0.2, "epsilon_high": 0.28}


def make_batch(rows=4, width=9, start=3, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCAB, (rows, width), generator=generator)
    tokens = torch.ones_like(ids, dtype=torch.bool)
    for row in range(rows):
        tokens[row, width - row % 3 :] = False
    labels = ids.masked_fill(~tokens, IGNORED)
    labels[:, :start] = IGNORED
    return Batch(ids.masked_fill(~tokens, 0), labels, torch.arange(rows), tokens)


def widen(batch: Batch) -> Batch:
    pad = torch.nn.functional.pad
    return Batch(
        pad(batch.input_ids, (0, 5)),
        pad(batch.labels, (0, 5), value=IGNORED),
        batch.record_ids,
        pad(batch.tokens, (0, 5)),
    )


def random_experience(count: int, seed: int = 0) -> Experience:
    generator = torch.Generator().manual_seed(seed)
    return Experience(
        -torch.rand(count, generator=generator),
        -torch.rand(count, generator=generator),
        torch.randn(count, generator=generator),
    )


def test_dpo_is_log_two_at_the_start_and_falls_with_the_margin():
    logs = torch.tensor([-3.0, -5.0])
    start = dpo_loss(
        better_logs=logs,
        worse_logs=logs - 1,
        reference_better_logs=logs,
        reference_worse_logs=logs - 1,
        beta=0.1,
    )
    assert start.item() == pytest.approx(2 * math.log(2))
    moved = dpo_loss(
        better_logs=logs + 1,
        worse_logs=logs - 2,
        reference_better_logs=logs,
        reference_worse_logs=logs - 1,
        beta=0.1,
    )
    assert moved.item() == pytest.approx(2 * math.log(1 + math.exp(-0.2)))


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_dpo_objective_starts_at_log_two_a_pair(kind, request):
    model = request.getfixturevalue(kind)
    objective = Dpo(kind="dpo").build(ObjectiveContext(model, reference=KeptForward(model)))
    loss = objective(KeptForward(model), make_batch())
    assert loss.count == 2
    assert loss.parts["dpo"] == pytest.approx(2 * math.log(2), rel=1e-5)
    assert loss.parts["margin"] == pytest.approx(0, abs=1e-5)
    assert not list(objective.parameters())


def test_equal_policies_have_ratio_one_and_no_divergence():
    logs = -torch.rand(20)
    experience = Experience(logs, logs, torch.randn(20))
    loss = grpo_loss(logs=logs, experience=experience, weights=torch.ones(20), beta=1.0, **CLIP)
    assert loss.total.item() == pytest.approx(-experience.advantages.sum().item(), rel=1e-5)
    assert loss.kl.item() == pytest.approx(0, abs=1e-6)
    assert loss.clipped.item() == 0


def test_no_advantage_no_gradient():
    logs = (-torch.rand(20)).requires_grad_()
    old = random_experience(20)._replace(advantages=torch.zeros(20))
    grpo_loss(logs=logs, experience=old, weights=torch.ones(20), beta=0.0, **CLIP).total.backward()
    assert logs.grad is not None
    assert torch.equal(logs.grad, torch.zeros(20))


@pytest.mark.parametrize(("advantage", "ratio"), [(1.0, 1.5), (-1.0, 0.5)])
def test_beyond_the_clip_nothing_more_is_gained(advantage, ratio):
    logs = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)
    experience = Experience(torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([advantage]))
    loss = grpo_loss(logs=logs, experience=experience, weights=torch.ones(1), beta=0.0, **CLIP)
    loss.total.backward()
    assert logs.grad is not None and logs.grad.item() == 0
    assert loss.clipped.item() == 1


def test_the_divergence_estimate_is_that_of_the_distributions():
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(8, generator=generator).log_softmax(0)
    reference = torch.randn(8, generator=generator).log_softmax(0)
    exact = (policy.exp() * (policy - reference)).sum().item()
    experience = Experience(policy, reference, torch.zeros(8))
    loss = grpo_loss(logs=policy, experience=experience, weights=policy.exp(), beta=1.0, **CLIP)
    assert loss.total.item() == pytest.approx(exact, rel=1e-5)


def test_advantages_are_within_the_group():
    rewards = torch.tensor([[1.0, 0.0, 1.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    plain = group_advantages(rewards, scale="none")
    assert plain.tolist() == [[0.5, -0.5, 0.5, -0.5], [0.0] * 4]
    scaled = group_advantages(rewards, scale="group")
    assert scaled[1].tolist() == [0.0] * 4
    assert scaled[0].std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("loss_type", "count"), [("dapo", 8), ("grpo", 2), ("dr_grpo", 20)])
def test_what_each_loss_type_counts_alike(loss_type, count):
    keep = torch.tensor([[True, True, False, False, False, False], [True] * 6])
    weights, found = weigh_tokens(keep, loss_type=loss_type, max_new_tokens=10)
    assert found == count
    sums = sum_rows(weights, keep=keep)
    assert sums.tolist() == ([1.0, 1.0] if loss_type == "grpo" else [2.0, 6.0])


@pytest.mark.parametrize("kind", ["dpo", "grpo"])
def test_padding_changes_nothing(kind, moe):
    batch = make_batch()
    keep = batch.kept
    if kind == "dpo":
        objective = Dpo(kind="dpo").build(ObjectiveContext(moe, reference=KeptForward(moe)))
    else:
        held = random_experience(int(keep.sum()))
        objective = Grpo(kind="grpo").build(ObjectiveContext(moe, experience=lambda batch: held))
    narrow = objective(KeptForward(moe), batch)
    wide = objective(KeptForward(moe), widen(batch))
    assert wide.count == narrow.count
    torch.testing.assert_close(wide.sum, narrow.sum, rtol=1e-5, atol=1e-5)


def test_the_reference_moves_no_balance_counter(moe):
    objective = Dpo(kind="dpo").build(ObjectiveContext(moe, reference=KeptForward(moe)))
    batch = make_batch()
    objective(KeptForward(moe), batch)
    assert sum(objective.balancer.picks).sum(dim=1).tolist() == [2 * int(batch.tokens.sum())] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_generations": 1}, "greater than or equal to 2"),
        ({"temperature": 0}, "greater than 0"),
        ({"rewards": {"fact": 1.0}}, "did you mean 'facts'"),
        ({"rewards": {"facts": 0}}, "greater than 0"),
        ({"rewards": {}}, "at least 1 item"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(ValidationError, match=message):
        Grpo.model_validate({"kind": "grpo"} | changes)


class FixedModel:
    """Stands in for TRL's model: the log-probabilities that its fused head would give."""

    def __init__(self, logs):
        self.logs, self.training = logs, True

    def __call__(self, **inputs):
        other = torch.zeros_like(self.logs)
        return SimpleNamespace(
            log_probs=self.logs, entropy=other, mean_logits=other, is_top1=other.bool()
        )


def spread(logs, keep):
    """Kept values at their places, as TRL has them."""
    return torch.zeros(keep.shape).masked_scatter(keep, logs)


def trl_stub(**fields):
    accelerator = SimpleNamespace(
        gather=lambda x: x,
        reduce=lambda x, **_: x,
        gather_for_metrics=lambda x: x,
        unwrap_model=lambda x: x,
        device=torch.device("cpu"),
        num_processes=1,
    )
    model = SimpleNamespace(training=True)
    metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    return SimpleNamespace(
        accelerator=accelerator, model=model, aux_loss_enabled=False, _metrics=metrics, **fields
    )


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_grpo_is_trls(loss_type):
    trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is not installed")
    batch = make_batch(rows=6)
    keep, targets = batch.kept, batch.targets
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(int(keep.sum()), VOCAB, generator=generator)
    logs = token_logs(logits, targets).requires_grad_()
    held = random_experience(len(logs))
    old = held.old_logs * 0.3 + logs.detach()
    by_row = torch.randn(6, generator=generator)
    advantages = by_row[keep.nonzero()[:, 0]]
    held = Experience(old, logs.detach() + held.reference_logs, advantages)
    weights, count = weigh_tokens(keep, loss_type=loss_type, max_new_tokens=12)
    ours = grpo_loss(logs=logs, experience=held, weights=weights, beta=0.04, **CLIP)
    (gradient,) = torch.autograd.grad(ours.total / count, logs)

    theirs_logs = logs.detach().clone().requires_grad_()
    stub = trl_stub(
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.04,
        epsilon_low=0.2,
        epsilon_high=0.28,
        loss_type=loss_type,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=12,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            spread(theirs_logs, keep),
            torch.zeros(keep.shape),
            None,
        ),
    )
    inputs = {
        "prompt_ids": batch.input_ids,
        "prompt_mask": batch.tokens.long(),
        "completion_ids": batch.input_ids,
        "completion_mask": keep.long(),
        "advantages": by_row,
        "old_per_token_logps": spread(held.old_logs, keep),
        "ref_per_token_logps": spread(held.reference_logs, keep),
        "num_items_in_batch": keep.sum(),
    }
    theirs = trainer.GRPOTrainer._compute_loss(stub, FixedModel(None), inputs)
    (their_gradient,) = torch.autograd.grad(theirs, theirs_logs)
    torch.testing.assert_close(ours.total / count, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-5, atol=1e-7)
    assert ours.clipped > 0
    kl = stub._metrics["train"]["kl"][0]
    if loss_type == "dapo":
        assert kl == pytest.approx(ours.kl.item() / count, rel=1e-5)


def test_advantages_are_scaled_as_trls():
    utils = pytest.importorskip("trl.trainer.utils", reason="TRL is not installed")
    rewards = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    theirs = rewards - rewards.mean(dim=1, keepdim=True)
    theirs = theirs / (utils.nanstd(rewards, dim=1).unsqueeze(1) + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, scale="group"), theirs)


def test_dpo_is_trls():
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", reason="TRL is not installed")
    batch = make_batch(rows=6)
    keep, targets = batch.kept, batch.targets
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, len(targets), VOCAB, generator=generator)
    logs, reference = (token_logs(item, targets) for item in logits)
    logs.requires_grad_()
    better, worse = sum_rows(logs, keep=keep).chunk(2)
    reference_better, reference_worse = sum_rows(reference, keep=keep).chunk(2)
    ours = dpo_loss(
        better_logs=better,
        worse_logs=worse,
        reference_better_logs=reference_better,
        reference_worse_logs=reference_worse,
        beta=0.3,
    )
    (gradient,) = torch.autograd.grad(ours / 3, logs)

    # TRL counts a token where it stands, ours where it is predicted: shift by one.
    mask = torch.zeros_like(batch.input_ids).masked_fill(batch.labels != IGNORED, 1)
    theirs_logs = logs.detach().clone().requires_grad_()
    stub = trl_stub(
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=0.3,
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.tokens,
        "completion_mask": mask,
        "ref_chosen_logps": reference_better,
        "ref_rejected_logps": reference_worse,
    }
    model = FixedModel(spread(theirs_logs, keep)[:, :-1])
    theirs = trainer.DPOTrainer._compute_loss(stub, model, inputs, False)
    (their_gradient,) = torch.autograd.grad(theirs, theirs_logs)
    torch.testing.assert_close(ours / 3, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-5, atol=1e-7)
