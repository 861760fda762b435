"""Computing layers again in the backward pass: less is kept, and nothing else changes."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.moe.layers import Gate
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit


def make_batch(vocab: int) -> Batch:
    ids = torch.randint(4, vocab, (4, 32), generator=torch.Generator().manual_seed(0))
    return Batch(ids, ids, torch.arange(4), torch.ones_like(ids, dtype=torch.bool))


def fit_once(model, folder, **settings):
    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    batch = make_batch(model.config.vocab_size)
    config = TrainingConfig(max_steps=3, logging_steps=1, **settings)
    return fit(
        model,
        batches=lambda step: [batch, batch],
        objective=objective,
        config=config,
        state=folder,
        title="test",
    )


@pytest.mark.parametrize("which", ["moe", "dense"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_curve_is_the_same_to_the_bit(which, precision, request, tokenizer, tmp_path):
    config = request.getfixturevalue(f"{which}_config")
    models = [config.build(tokenizer=tokenizer, seed=0) for _ in range(2)]
    plain = fit_once(models[0], tmp_path / "a", precision=precision)
    again = fit_once(
        models[1], tmp_path / "b", precision=precision, gradient_checkpointing="layers"
    )
    assert again == plain
    for left, right in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(left, right)
    assert not models[1].is_activation_checkpointing


def measure_kept_bytes(model, batch) -> int:
    kept = {}

    def pack(item):
        kept[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        return item

    with saved_tensors_hooks(pack, lambda item: item):
        KeptForward(model)(batch, keep=batch.tokens)
    return sum(kept.values())


def test_less_is_kept_for_the_backward_pass(moe):
    moe.train()
    batch = make_batch(moe.config.vocab_size)
    plain = measure_kept_bytes(moe, batch)
    moe.activation_checkpointing_enable()
    assert measure_kept_bytes(moe, batch) < 0.6 * plain


def test_recomputation_routes_alike_and_counts_once(moe):
    moe.train()
    moe.activation_checkpointing_enable()
    picked: dict[int, list] = {}
    for place, gate in enumerate(item for item in moe.modules() if isinstance(item, Gate)):
        gate.balance_bias += torch.arange(8) / 50
        gate.register_forward_hook(
            lambda module, inputs, routing, place=place: picked.setdefault(place, []).append(
                routing.picked
            )
        )
    batch = make_batch(moe.config.vocab_size)
    objective = NextToken(kind="next_token").build(ObjectiveContext(moe))
    objective(KeptForward(moe), batch).sum.backward()
    for first, second in picked.values():
        assert torch.equal(first, second)
    assert len(picked) == 2
    (counted,) = objective.balancer.picks
    assert counted.sum(dim=1).tolist() == [batch.tokens.sum() * 2] * 2
