"""Losses: zero where they must be, moved by what must move them, blind to what is masked."""

import math

import pytest
import torch

from limbeck.distillation.features.config import Matching
from limbeck.distillation.features.matching import scaled_mse
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.targets import FullLogits, Targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import Kept, KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Balance, NextToken
from limbeck.objectives.load_balancing import Balancer, balance_loss
from tests.support.forward_kl import forward_kl, forward_kl_with_tail


def make_batch(rows: int = 3, width: int = 7, vocab: int = 40, start: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab, (rows, width), generator=generator)
    labels = ids.clone()
    labels[:, :start] = IGNORED
    return Batch(ids, labels, torch.arange(rows), torch.ones_like(ids, dtype=torch.bool))


class FixedTeacher(Teacher):
    """A teacher that always returns the same."""

    layers = ()
    live_model = None

    def __init__(self, logits: torch.Tensor, hidden: tuple[torch.Tensor, ...] = ()) -> None:
        self.logits, self.states = logits, hidden
        self.vocab = logits.shape[-1]
        self.hidden_size = hidden[0].shape[-1] if hidden else 0

    def require(self, *, layers=(), attention=()) -> None:
        pass

    def __call__(self, batch: Batch) -> Targets:
        return Targets(FullLogits(self.logits), self.states)


def test_kl_is_zero_when_they_agree():
    logits = torch.randn(5, 40)
    for temperature in (0.5, 1.0, 2.0, 4.0):
        value = forward_kl(
            student_logits=logits, teacher_logits=logits + 3.0, temperature=temperature
        )
        assert abs(value.item()) < 1e-4


def test_kl_equals_a_float64_reference():
    student, teacher = torch.randn(5, 40), torch.randn(5, 40)
    for temperature in (1.0, 2.0):
        p = (teacher.double() / temperature).softmax(-1)
        q = (student.double() / temperature).softmax(-1)
        expected = (p * (p.log() - q.log())).sum() * temperature**2
        value = forward_kl(student_logits=student, teacher_logits=teacher, temperature=temperature)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def stored(logits: torch.Tensor, *, top: int, temperature: float):
    values, ids = logits.topk(top, dim=-1)
    rest = logits.scatter(1, ids, -torch.inf)
    return values, ids, (rest / temperature).logsumexp(-1).clamp(min=-1e4)


def test_tail_form_equals_the_full_divergence_with_every_token_stored():
    student, teacher = torch.randn(5, 40), torch.randn(5, 40)
    values, ids, tail = stored(teacher, top=40, temperature=2.0)
    full = forward_kl(student_logits=student, teacher_logits=teacher, temperature=2.0)
    kept = forward_kl_with_tail(
        student_logits=student, top_logits=values, top_ids=ids, tail=tail, temperature=2.0
    )
    assert kept.item() == pytest.approx(full.item(), rel=1e-4)


def test_tail_form_is_zero_when_they_agree_and_a_lower_bound_otherwise():
    student, teacher = torch.randn(5, 40), torch.randn(5, 40)
    values, ids, tail = stored(teacher, top=6, temperature=2.0)
    arguments = {"top_logits": values, "top_ids": ids, "tail": tail, "temperature": 2.0}
    same = forward_kl_with_tail(student_logits=teacher, **arguments)
    other = forward_kl_with_tail(student_logits=student, **arguments)
    full = forward_kl(student_logits=student, teacher_logits=teacher, temperature=2.0)
    assert abs(same.item()) < 1e-4
    assert 0 < other.item() < full.item()


def test_tail_form_has_finite_gradients_when_every_token_is_stored():
    student = torch.randn(5, 40, requires_grad=True)
    values, ids, tail = stored(torch.randn(5, 40), top=40, temperature=1.0)
    forward_kl_with_tail(
        student_logits=student, top_logits=values, top_ids=ids, tail=tail, temperature=1.0
    ).backward()
    assert student.grad is not None and student.grad.isfinite().all()


def soft(model, teacher, batch, **settings):
    objective = SoftTarget(kind="soft_target", **settings).build(
        ObjectiveContext(model, teacher=teacher)
    )
    return objective(KeptForward(model), batch)


def test_temperature_and_weight_change_the_loss(dense):
    batch = make_batch(vocab=dense.config.vocab_size)
    teacher = FixedTeacher(torch.randn(12, dense.config.vocab_size))
    values = {
        soft(dense, teacher, batch, temperature=temperature, weight=weight).sum.item()
        for temperature in (1.0, 2.0, 3.0)
        for weight in (0.3, 0.7)
    }
    assert len(values) == 6


def test_the_mix_is_the_stated_formula(dense):
    batch = make_batch(vocab=dense.config.vocab_size)
    teacher = FixedTeacher(torch.randn(12, dense.config.vocab_size))
    loss = soft(dense, teacher, batch, temperature=2.0, weight=0.7)
    assert loss.sum.item() == pytest.approx(0.7 * loss.parts["kl"] + 0.3 * loss.parts["ce"])
    assert loss.count == 12


def test_masked_positions_and_padded_vocabulary_carry_no_loss(dense):
    batch = make_batch(vocab=dense.config.vocab_size)
    real = dense.config.vocab_size - 5
    labels = batch.labels.clamp(max=real - 1)
    batch = Batch(batch.input_ids, labels, batch.record_ids, batch.tokens)
    logits = torch.randn(12, real)
    teacher = FixedTeacher(logits)
    before = soft(dense, teacher, batch)

    def louder(batch, **options):
        output = KeptForward(dense)(batch, **options)
        noisy = output.logits.clone()
        noisy[:, real:] += 50.0
        return Kept(noisy, output.hidden, output.routing)

    objective = SoftTarget(kind="soft_target").build(ObjectiveContext(dense, teacher=teacher))
    assert objective(louder, batch).sum.item() == before.sum.item()
    plain = NextToken(kind="next_token", vocab=real).build(ObjectiveContext(dense))
    assert plain(louder, batch).sum.item() == plain(KeptForward(dense), batch).sum.item()


def test_padding_tokens_change_nothing(moe):
    batch = make_batch(vocab=moe.config.vocab_size)
    # Weights of one, so that a routing loss which counted the padding would show.
    balance = Balance(loss_weight=1.0, z_weight=1.0)
    objective = NextToken(kind="next_token", balance=balance).build(ObjectiveContext(moe))
    plain = objective(KeptForward(moe), batch)
    pad = torch.zeros(3, 4, dtype=torch.int64)
    wide = Batch(
        torch.cat([batch.input_ids, pad], 1),
        torch.cat([batch.labels, pad + IGNORED], 1),
        batch.record_ids,
        torch.cat([batch.tokens, pad.bool()], 1),
    )
    padded = objective(KeptForward(moe), wide)
    assert padded.sum.item() == pytest.approx(plain.sum.item(), rel=1e-5)
    assert padded.count == plain.count
    assert padded.parts["routing"] == pytest.approx(plain.parts["routing"], rel=1e-5)
    picks = objective.balancer.picks
    assert picks[0].equal(picks[1])
    # Layer by layer, for the differences of two layers may cancel.
    narrow, broad = KeptForward(moe)(batch).routing, KeptForward(moe)(wide).routing
    for left, right in zip(narrow, broad, strict=True):
        values = [
            balance_loss(
                probabilities=layer.probabilities, picked=layer.picked, tokens=tokens.reshape(-1)
            ).item()
            for layer, tokens in ((left, batch.tokens), (right, wide.tokens))
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_matching_is_zero_for_the_teachers_own_direction_and_reaches_the_projection(dense):
    state = torch.randn(12, 24)
    rms = state.square().mean(-1, keepdim=True).sqrt()
    assert scaled_mse(student=state / rms, teacher=state * 7).item() == pytest.approx(0, abs=1e-4)
    batch = make_batch(vocab=dense.config.vocab_size)
    teacher = FixedTeacher(torch.randn(12, dense.config.vocab_size), (state,))
    pairs = (Matching(student_layer=2, teacher_layer=4),)
    objective = SoftTarget(kind="soft_target", matching=pairs).build(
        ObjectiveContext(dense, teacher=teacher)
    )
    loss = objective(KeptForward(dense), batch)
    loss.sum.backward()
    (projection,) = objective.projections.maps
    assert loss.parts["matching"] > 0
    assert projection.weight.grad.abs().sum() > 0


def test_collapsed_layers_never_score_as_balanced():
    tokens = torch.ones(64, dtype=torch.bool)
    even = torch.arange(128).reshape(64, 2) % 8
    collapsed = torch.tensor([[0, 1]]).repeat(64, 1)
    flat = torch.full((64, 8), 1 / 8)
    sure = torch.zeros(64, 8)
    sure[:, :2] = 0.5
    assert balance_loss(probabilities=flat, picked=even, tokens=tokens).item() == pytest.approx(1.0)
    assert balance_loss(
        probabilities=sure, picked=collapsed, tokens=tokens
    ).item() == pytest.approx(4.0)
    mirrored = sure.flip(1)
    other = balance_loss(probabilities=mirrored, picked=7 - collapsed, tokens=tokens)
    assert other.item() == pytest.approx(4.0)


def test_evaluation_leaves_the_counters_alone_and_training_moves_the_bias(moe):
    batch = make_batch(vocab=moe.config.vocab_size)
    objective = NextToken(kind="next_token").build(ObjectiveContext(moe))
    with torch.no_grad():
        objective(KeptForward(moe), batch)
    assert not objective.balancer.picks
    objective(KeptForward(moe), batch)
    assert sum(objective.balancer.picks).sum(dim=1).tolist() == [42, 42]
    objective.after_step(model=moe)
    biases = [layer.mlp.gate.balance_bias for layer in moe.model.layers]
    assert all(bias.abs().max() == pytest.approx(0.001) for bias in biases)
    assert not objective.balancer.picks


def test_bias_moves_once_a_step_whatever_the_micro_batches(moe):
    objective = NextToken(kind="next_token").build(ObjectiveContext(moe))
    gates = [layer.mlp.gate for layer in moe.model.layers]
    for _ in range(3):
        objective(KeptForward(moe), make_batch(vocab=moe.config.vocab_size))
    weights = [gate.weight.clone() for gate in gates]
    objective.after_step(model=moe)
    once = [gate.balance_bias.clone() for gate in gates]
    objective.after_step(model=moe)
    for gate, bias, weight in zip(gates, once, weights, strict=True):
        assert bias.abs().max() == pytest.approx(0.001)
        assert torch.equal(gate.balance_bias, bias)
        assert torch.equal(gate.weight, weight)


def test_a_micro_batch_that_only_keeps_step_is_not_counted(moe):
    objective = NextToken(kind="next_token").build(ObjectiveContext(moe)).eval()
    objective(KeptForward(moe), make_batch(vocab=moe.config.vocab_size)).sum.backward()
    assert not objective.balancer.picks


def test_balancer_evens_out_a_skewed_gate(moe):
    balancer = Balancer(Balance(bias_rate=0.005))
    batch = make_batch(rows=16, width=16, vocab=moe.config.vocab_size)
    spread = []
    for _ in range(40):
        keep = torch.zeros_like(batch.tokens)
        balancer(KeptForward(moe)(batch, keep=keep).routing, batch)
        assert balancer.picks
        spread.append(sum(balancer.picks).float().std(dim=1).mean().item())
        balancer.update(moe)
    assert min(spread[-5:]) < 0.5 * spread[0]


def test_loss_at_the_start_is_that_of_guessing(dense_config, tokenizer):
    fresh = dense_config.replace(initializer_range=0.01).build(tokenizer=tokenizer, seed=0)
    batch = make_batch(vocab=fresh.config.vocab_size)
    loss = NextToken(kind="next_token").build(ObjectiveContext(fresh))(KeptForward(fresh), batch)
    assert loss.sum.item() / loss.count == pytest.approx(math.log(len(tokenizer)), rel=0.05)


def test_smoothed_labels_are_torchs_and_none_at_zero(dense):
    batch = make_batch(vocab=dense.config.vocab_size)
    losses = {}
    for share in (0.0, 0.1):
        config = NextToken(kind="next_token", label_smoothing=share)
        losses[share] = config.build(ObjectiveContext(dense))(KeptForward(dense), batch)
    logits = KeptForward(dense)(batch).logits
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")
    plain = torch.nn.CrossEntropyLoss(reduction="sum")
    torch.testing.assert_close(losses[0.1].sum, smoothed(logits, batch.targets))
    torch.testing.assert_close(losses[0.0].sum, plain(logits, batch.targets))
    assert losses[0.0].count == losses[0.1].count == batch.targets.numel()
    assert losses[0.0].parts == losses[0.1].parts == {"ce": losses[0.0].sum.item()}
