"""`soft_target` from hidden states: the same loss and gradients as from logits."""

import pytest
import torch

from limbeck.contracts.errors import CheckpointError, TrainingError
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.targets import FullLogits, HiddenAndHead, Targets, TopK
from limbeck.distillation.teachers.base import OutputTeacher
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.models import forward as forward_module
from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext


def make_batch(vocab):
    ids = torch.randint(0, vocab, (3, 7), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :3] = IGNORED
    return Batch(ids, labels, torch.arange(3), torch.ones_like(ids, dtype=torch.bool))


def teach(dense, moe, **settings):
    """Loss and gradients of a dense student under a live teacher."""
    config = SoftTarget.model_validate({"kind": "soft_target"} | settings)
    needs, vocab = config.needs(), moe.config.vocab_size
    teacher = OnlineTeacher(moe, vocab=vocab - 2, logits_form=needs.logits_form)
    objective = config.build(ObjectiveContext(dense, teacher=teacher))
    dense.zero_grad()
    loss = objective(KeptForward(dense), make_batch(vocab))
    loss.sum.backward()
    gradients = {
        name: item.grad.clone() for name, item in dense.named_parameters() if item.grad is not None
    }
    return loss, gradients, type(teacher(make_batch(vocab)).output)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"divergence": {"kind": "jensen_shannon"}, "temperature": 1.0},
        {"matching": [{"student_layer": 1, "teacher_layer": 2}]},
    ],
)
def test_fused_equals_plain(dense, moe, settings):
    torch.manual_seed(0)
    plain, wanted, whole = teach(dense, moe, fused="never", **settings)
    torch.manual_seed(0)
    fused, found, projected = teach(dense, moe, fused="always", **settings)
    assert (whole, projected) == (FullLogits, HiddenAndHead)
    assert fused.count == plain.count
    assert fused.parts == pytest.approx(plain.parts, rel=1e-5)
    assert fused.sum.item() == pytest.approx(plain.sum.item(), rel=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


def test_auto_is_plain_for_a_small_vocabulary_and_fused_for_a_large_one(dense, moe, monkeypatch):
    plain, _, form = teach(dense, moe, fused="auto")
    assert form is FullLogits
    assert plain.sum == teach(dense, moe, fused="never")[0].sum
    monkeypatch.setattr(forward_module, "LARGE_VOCAB", 10)
    assert teach(dense, moe, fused="auto")[2] is HiddenAndHead


def test_a_head_that_is_not_a_plain_product_is_refused_by_name(dense, moe):
    dense.set_output_embeddings(torch.nn.Linear(16, dense.config.vocab_size, bias=True))
    with pytest.raises(CheckpointError, match="fused: always"):
        teach(dense, moe, fused="always")


def test_schedules_move_the_loss_and_signals_of_one_temperature_are_refused(dense, moe):
    vocab = moe.config.vocab_size
    batch, teacher = make_batch(vocab), OnlineTeacher(moe, vocab=vocab)
    config = SoftTarget.model_validate(
        {"kind": "soft_target", "temperature": {"from": 3, "to": 1}, "weight": {"from": 1, "to": 0}}
    )
    objective = config.build(ObjectiveContext(dense, teacher=teacher))
    for progress, temperature, weight in ((0.0, 3.0, 1.0), (0.5, 2.0, 0.5), (1.0, 1.0, 0.0)):
        objective.before_step(progress=progress)
        fixed = SoftTarget(kind="soft_target", temperature=temperature, weight=weight)
        wanted = fixed.build(ObjectiveContext(dense, teacher=teacher))(KeptForward(dense), batch)
        assert objective(KeptForward(dense), batch).sum.item() == pytest.approx(wanted.sum.item())

    class Stored(OutputTeacher):
        vocab = moe.config.vocab_size

        def __call__(self, batch):
            kept = int((batch.labels[:, 1:] != IGNORED).sum())
            ids = torch.zeros(kept, 1, dtype=torch.int64)
            return Targets(TopK(torch.zeros(kept, 1), ids, torch.zeros(kept), temperature=1.0))

    with pytest.raises(TrainingError, match="hold for one temperature"):
        config.build(ObjectiveContext(dense, teacher=Stored()))(KeptForward(dense), batch)
