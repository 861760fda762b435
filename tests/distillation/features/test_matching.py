"""Inner states: zero where they must be, equal to plain formulas; layers by name."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.errors import ArtifactError, CheckpointError
from limbeck.distillation.features.config import Matching
from limbeck.distillation.features.layer_mapping import (
    best_monotone_path,
    resolve_layers,
    spread_evenly,
)
from limbeck.distillation.features.similarity import (
    average_heads,
    cka_distance,
    cosine_distance,
    linear_cka,
    map_kl,
    map_mse,
)
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.targets import FullLogits, Targets
from limbeck.distillation.teachers.base import OutputTeacher
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.models.attention_capture import enable_attention_capture
from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext


def make_batch(rows: int = 3, width: int = 9, start: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 40, (rows, width), generator=generator)
    labels = ids.clone()
    labels[:, :start] = IGNORED
    return Batch(ids, labels, torch.arange(rows), torch.ones_like(ids, dtype=torch.bool))


def reference_cka(x, y):
    """Through centred Gram matrices of all pairs of tokens, in float64."""
    x, y = x.double(), y.double()
    n = len(x)
    centre = torch.eye(n, dtype=torch.float64) - 1.0 / n
    k, m = centre @ (x @ x.T) @ centre, centre @ (y @ y.T) @ centre
    return (k * m).sum() / ((k * k).sum().sqrt() * (m * m).sum().sqrt())


def test_cka_is_the_plain_formula_and_blind_to_rotation_scale_and_shift():
    x, y = torch.randn(30, 6) + 2, torch.randn(30, 9) * 5
    y[:, :3] += x[:, :3]
    value = linear_cka(student=x, teacher=y)
    assert value.item() == pytest.approx(reference_cka(x, y).item(), rel=1e-5)
    assert 0.05 < value < 0.95
    turn = torch.linalg.qr(torch.randn(9, 9)).Q
    turned = linear_cka(student=x, teacher=y @ turn * 30 - 7)
    assert turned.item() == pytest.approx(value.item(), rel=1e-4)
    assert cka_distance(student=x, teacher=3 * x + 1).item() == pytest.approx(0, abs=1e-4)
    assert cka_distance(student=x, teacher=y).item() == pytest.approx(30 * (1 - value.item()))
    assert cka_distance(student=x[:1], teacher=y[:1]) == 0


def test_cosine_is_zero_for_the_same_direction_and_two_for_the_opposite():
    x = torch.randn(5, 7)
    assert cosine_distance(student=x, teacher=3 * x).item() == pytest.approx(0, abs=1e-5)
    assert cosine_distance(student=x, teacher=-x).item() == pytest.approx(10)


def test_maps_of_attention_differ_as_plainly_written():
    student, teacher = torch.randn(2, 5, 3, 8).log_softmax(-1)
    p, q = teacher.double().exp(), student.double().exp()
    expected = sum(
        (p[t, h] * (p[t, h] / q[t, h]).log()).sum() / 3 for t in range(5) for h in range(3)
    )
    found = map_kl(student_logs=student, teacher_logs=teacher)
    assert found.item() == pytest.approx(float(expected), rel=1e-5)
    squared = map_mse(student_logs=student, teacher_logs=teacher)
    assert squared.item() == pytest.approx(float((p - q).square().sum() / 3), rel=1e-5)
    grouped = average_heads(torch.randn(5, 6, 8).log_softmax(-1), num_groups=2)
    torch.testing.assert_close(grouped.exp().sum(-1), torch.ones(5, 2))


def test_the_path_is_the_best_of_all_rising_maps():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((1, 4), (3, 3), (3, 6), (4, 2)):
        for _ in range(5):
            alike = torch.rand(rows, columns, generator=generator)
            step = 1 if rows <= columns else 0
            rising = [
                path
                for path in itertools.product(range(columns), repeat=rows)
                if all(b - a >= step for a, b in itertools.pairwise(path))
            ]
            best = max(rising, key=lambda path: float(sum(alike[i, j] for i, j in enumerate(path))))
            assert best_monotone_path(alike) == list(best)


def test_uniform_spreads_over_the_depth_and_the_last_meet():
    assert spread_evenly(2, (1, 2, 3, 4, 5)) == [(1, 3), (2, 5)]
    assert spread_evenly(3, (2, 4)) == [(1, 2), (2, 4), (3, 4)]


def test_named_maps_become_pairs_and_share_the_weight(moe, dense):
    teacher = OnlineTeacher(moe, vocab=40)
    items = [Matching(layers=name, weight=3.0) for name in ("last", "uniform")]
    found = resolve_layers(items, model=dense, teacher=teacher)
    assert [(item.student_layer, item.teacher_layer, item.weight) for item in found] == [
        (2, 2, 3.0),
        (1, 1, 1.5),
        (2, 2, 1.5),
    ]
    itself = OnlineTeacher(dense, vocab=40)
    (first, last) = resolve_layers(
        [Matching(layers="searched")], model=dense, teacher=itself, batches=[make_batch()]
    )
    assert (first.teacher_layer, last.teacher_layer) == (1, 2)
    with pytest.raises(CheckpointError, match="only the stage `distill` has"):
        resolve_layers([Matching(layers="searched")], model=dense, teacher=teacher)


@pytest.mark.parametrize(
    "item",
    [
        {"what": "attention", "measure": "kl"},
        {"what": "attention", "measure": "mse"},
        {"what": "values", "measure": "kl", "relation_heads": 4},
        {"measure": "cka"},
    ],
    ids=str,
)
def test_a_model_is_like_itself_and_another_is_drawn_to_it(item, dense, dense_config, tokenizer):
    matching = (Matching(layers="uniform", **item),)
    config = SoftTarget(kind="soft_target", matching=matching)
    teacher = OnlineTeacher(dense, vocab=40)
    batch = make_batch()
    same = config.build(ObjectiveContext(dense, teacher=teacher))(KeptForward(dense), batch)
    assert same.parts["matching"] == pytest.approx(0, abs=2e-3)
    other = dense_config.build(tokenizer=tokenizer, seed=5)
    loss = config.build(ObjectiveContext(other, teacher=teacher))(KeptForward(other), batch)
    assert loss.parts["matching"] > 0.05
    before = loss.parts["matching"]
    step = torch.autograd.grad(loss.sum, list(other.parameters()), allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(other.parameters(), step, strict=True):
            if gradient is not None:
                parameter -= 1e-3 * gradient
    after = config.build(ObjectiveContext(other, teacher=teacher))(KeptForward(other), batch)
    assert after.parts["matching"] < before


def test_head_counts_may_differ(dense, dense_config, tokenizer):
    other = dense_config.replace(num_attention_heads=4, head_dim=4).build(
        tokenizer=tokenizer, seed=5
    )
    config = SoftTarget(
        kind="soft_target", matching=(Matching(what="attention", measure="kl", layers="last"),)
    )
    teacher = OnlineTeacher(other, vocab=40)
    loss = config.build(ObjectiveContext(dense, teacher=teacher))(KeptForward(dense), make_batch())
    assert loss.parts["matching"] > 0


def test_padding_changes_nothing(dense, moe):
    config = SoftTarget(
        kind="soft_target",
        matching=tuple(
            Matching(what=what, measure="kl", layers="uniform") for what in ("attention", "values")
        ),
    )
    objective = config.build(ObjectiveContext(dense, teacher=OnlineTeacher(moe, vocab=40)))
    batch = make_batch()
    wide = Batch(
        torch.nn.functional.pad(batch.input_ids, (0, 4)),
        torch.nn.functional.pad(batch.labels, (0, 4), value=IGNORED),
        batch.record_ids,
        torch.nn.functional.pad(batch.tokens, (0, 4)),
    )
    assert int(wide.kept.sum()) == int(batch.kept.sum())
    found = [objective(KeptForward(dense), item).parts["matching"] for item in (batch, wide)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_layers_computed_again_and_threads_side_by_side_change_no_bit(dense, moe):
    items = tuple(
        Matching(what=what, measure="kl", layers="uniform") for what in ("attention", "values")
    )
    config = SoftTarget(kind="soft_target", matching=items)
    objective = config.build(ObjectiveContext(dense, teacher=OnlineTeacher(moe, vocab=40)))
    dense.train()

    def gradients(width):
        loss = objective(KeptForward(dense), make_batch(width=width)).sum
        return torch.autograd.grad(loss, list(dense.parameters()), allow_unused=True)

    widths = [6, 9, 12, 15] * 4
    plain = [gradients(width) for width in widths]
    with ThreadPoolExecutor(4) as pool:
        side_by_side = list(pool.map(gradients, widths))
    dense.activation_checkpointing_enable()
    again = gradients(widths[1])
    for found, expected in [*zip(side_by_side, plain, strict=True), (again, plain[1])]:
        for ours, theirs in zip(found, expected, strict=True):
            assert theirs is None or torch.equal(ours, theirs)


def test_a_model_made_ready_can_be_built_again(dense):
    enable_attention_capture(dense)
    other = type(dense)._from_config(
        dense.config, attn_implementation=dense.config._attn_implementation
    )
    other.load_state_dict(dense.state_dict())
    ids = make_batch().input_ids
    assert torch.equal(other.eval()(ids).logits, dense(ids).logits)
    assert "limbeck_capturing" not in dense.config.to_json_string()


class Recorded(OutputTeacher):
    """A teacher without hidden states."""

    vocab = 40

    def __call__(self, batch: Batch) -> Targets:
        return Targets(FullLogits(torch.zeros(int(batch.kept.sum()), 40)))


def test_what_cannot_be_matched_is_refused_by_name(dense, moe):
    live = OnlineTeacher(moe, vocab=40)
    for wrong, message in (
        ({"measure": "kl", "layers": "last"}, "measure 'kl' is not for 'hidden'"),
        ({"what": "values", "measure": "cka", "layers": "last"}, "not for 'values'"),
        ({"student_layer": 1}, "counted from 1; or name a map"),
        ({"layers": "last", "teacher_layer": 1}, "finds the layers itself"),
        ({"layers": "last", "relation_heads": 2}, "relation_heads is for"),
    ):
        with pytest.raises(ValidationError, match=message):
            Matching.model_validate(wrong)
    pair = Matching(student_layer=1, teacher_layer=9)
    with pytest.raises(ArtifactError, match=r"layers \[9\] are required, the teacher has 2"):
        SoftTarget(kind="soft_target", matching=(pair,)).build(
            ObjectiveContext(dense, teacher=live)
        )
    attention = Matching(what="attention", measure="kl", student_layer=1, teacher_layer=1)
    for item, message in ((attention, "one live teacher"), (Matching(layers="last"), "one live")):
        with pytest.raises((ArtifactError, CheckpointError), match=message):
            SoftTarget(kind="soft_target", matching=(item,)).build(
                ObjectiveContext(dense, teacher=Recorded())
            )
