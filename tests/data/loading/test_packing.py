"""Packed rows: every record once, none reaches another, and training is what it was."""

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import (
    DeepseekV3Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, TrainingError
from limbeck.contracts.records import read_records, write_jsonl
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.packing import pack_parts
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.batch import IGNORED, count_kept
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.config import PLAIN_HEADS
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Needs, NextToken
from limbeck.stages import distill, record, train
from limbeck.training.optimizer_step import ModelWithLoss
from tests.support.artifacts import make_artifact

PACKED = BatchingConfig(
    per_device_train_batch_size=3, gradient_accumulation_steps=2, packing="full", select="all"
)
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2}
MODELS = [
    Qwen2Config(**SHAPE),
    Qwen3Config(**SHAPE),
    LlamaConfig(**SHAPE),
    MistralConfig(**SHAPE | {"sliding_window": 4}),
    Qwen3MoeConfig(**SHAPE, **EXPERTS),
    Qwen2MoeConfig(**SHAPE, **EXPERTS, shared_expert_intermediate_size=8),
    MixtralConfig(**SHAPE, num_local_experts=4),
    OlmoeConfig(**SHAPE, **EXPERTS),
    DeepseekV3Config(
        **SHAPE | {"num_key_value_heads": 2, "head_dim": 4},
        first_k_dense_replace=1,
        moe_intermediate_size=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
    ),
]


def unpack(batches, batch):
    """The same records, one a row."""
    return batches.batch(batch.record_ids.tolist())


def judge(model, objective, batch):
    """Loss, count and gradients, as the training loop has them."""
    model_with_loss = ModelWithLoss(model, objective, precision="float32")
    loss, count, _ = model_with_loss(batch)
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return loss, count, [item for item in grads if item is not None]


def assert_same_training(model, objective, batches, batch):
    packed, count, found = judge(model, objective, batch)
    plain, num_labels, expected = judge(model, objective, unpack(batches, batch))
    assert count == num_labels > 0
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture
def batches(corpus, tokenizer):
    return Batches(Corpus(corpus), tokenizer=tokenizer, config=PACKED)


@pytest.mark.parametrize("loss_on", ["answer", "all"])
@pytest.mark.parametrize("name", ["dense", "moe"])
def test_next_token_learns_the_same(name, loss_on, corpus, tokenizer, request):
    config = PACKED.replace(loss_on=loss_on)
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    objective = NextToken(kind="next_token").build(ObjectiveContext(request.getfixturevalue(name)))
    for batch in (*batches(0), batches.pack([[3, 0, 8], [5], [7, 2]])):
        assert_same_training(request.getfixturevalue(name), objective, batches, batch)


def test_soft_targets_train_the_same_live_and_from_signals(
    corpus, tokenizer, moe, dense, batches, tmp_path
):
    for name in ("teacher", "signals"):
        (tmp_path / name).mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")
    inputs = {
        "teacher": (make_artifact(tmp_path / "teacher", "checkpoint"),),
        "corpus": (make_artifact(corpus, "corpus"),),
    }
    config = record.Config.model_validate(
        {
            "stage": "record",
            "teacher": "teacher",
            "corpus": "corpus",
            "layers": (2,),
            "batching": PACKED.model_dump(),
        }
    )
    record.run(config, work=Work("signals", tmp_path / "signals", tmp_path / "state", inputs))
    matching = {"student_layer": 2, "teacher_layer": 2, "weight": 1.0}
    soft = SoftTarget.model_validate({"kind": "soft_target", "matching": [matching]})
    stored = open_teacher(
        [make_artifact(tmp_path / "signals", "signals")],
        corpus=inputs["corpus"][0],
        batches=batches,
        needs=Needs(2.0),
    )
    assert stored is not None
    for teacher in (OnlineTeacher(moe, vocab=len(tokenizer)), stored):
        objective = soft.build(ObjectiveContext(dense, teacher=teacher))
        for batch in (*batches(1), batches.pack([[3, 0, 8], [5], [7, 2]])):
            assert_same_training(dense, objective, batches, batch)


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.model_type)
def test_a_changed_record_moves_no_other(config, batches):
    torch.manual_seed(0)
    forward = KeptForward(AutoModelForCausalLM.from_config(config).eval())
    batch = batches.pack([[0, 4, 2], [7, 1]])
    lengths = [
        int(batches.records.lengths(np.array([index]))[0]) for index in batch.record_ids.tolist()
    ]
    batch = dataclasses.replace(batch, input_ids=batch.input_ids % 64)
    other = batch.input_ids.clone()
    middle = slice(lengths[0], lengths[0] + lengths[1])
    other[0, middle] = (other[0, middle] + 1) % 64
    before, after = (
        forward(item, keep=item.tokens).logits.detach()
        for item in (batch, dataclasses.replace(batch, input_ids=other))
    )
    changed = torch.zeros(sum(lengths), dtype=torch.bool)
    changed[middle] = True
    assert not torch.equal(before[changed], after[changed])
    torch.testing.assert_close(before[~changed], after[~changed], rtol=0, atol=1e-6)
    # And each is what it is alone in a row.
    first = 0
    for row, length in zip(batch.record_ids.tolist(), lengths, strict=True):
        single = batches.batch([row])
        single = dataclasses.replace(single, input_ids=single.input_ids % 64)
        alone = forward(single, keep=single.tokens).logits
        torch.testing.assert_close(before[first : first + length], alone, rtol=1e-4, atol=1e-5)
        first += length


def test_every_architecture_that_may_pack_is_tried():
    assert {config.model_type for config in MODELS} | {"limbeck_moe"} == PLAIN_HEADS


def test_an_architecture_not_tried_is_refused(batches):
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)
    forward = KeptForward(AutoModelForCausalLM.from_config(config))
    (batch, *_) = batches(0)
    with pytest.raises(TrainingError, match="'gpt2' is not known to keep packed records apart"):
        forward(dataclasses.replace(batch, input_ids=batch.input_ids % 64))


def test_a_step_holds_its_records_once_and_can_be_made_again(batches, corpus, tokenizer):
    again = Batches(Corpus(corpus), tokenizer=tokenizer, config=PACKED)
    for step in range(5):
        made = batches(step)
        assert len(made) <= PACKED.gradient_accumulation_steps
        rows = torch.cat([batch.record_ids for batch in made])
        assert sorted(rows.tolist()) == sorted(batches.records.order(step).tolist())
        for one, other in zip(made, again(step), strict=True):
            assert torch.equal(one.input_ids, other.input_ids)
            assert torch.equal(one.record_ids, other.record_ids)
            assert one.positions is not None and other.positions is not None
            assert torch.equal(one.positions, other.positions)


def test_no_loss_crosses_from_a_record_to_the_next(corpus, tokenizer):
    config = PACKED.replace(loss_on="all")
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    for batch in batches(0):
        assert batch.positions is not None
        assert (batch.labels[batch.positions == 0] == IGNORED).all()
        assert (batch.labels[~batch.tokens] == IGNORED).all()
        counted = int(batch.kept.sum())
        assert torch.equal(count_kept(batch), count_kept(unpack(batches, batch)))
        assert counted == int(batches.records.lengths(batch.record_ids.numpy()).sum()) - len(
            batch.record_ids
        )


def test_rows_hold_every_record_once_and_pad_little():
    generator = np.random.default_rng(0)
    for size in (1, 3, 9, 300):
        lengths = generator.geometric(0.02, size=size)
        parts = pack_parts(lengths, num_parts=4)
        assert len(parts) == min(4, size)
        held = [record for rows in parts for row in rows for record in row]
        assert sorted(held) == list(range(size))
        sums = [[lengths[row].sum() for row in rows] for rows in parts]
        padded = sum(len(part) * max(part) for part in sums)
        assert padded <= 1.05 * lengths.sum()


def test_packed_images_are_refused(corpus, tokenizer, tmp_path):
    records = [
        dataclasses.replace(item, images=("a.png",))
        for item in read_records(corpus / "records" / "train.jsonl")
    ]
    (tmp_path / "records").mkdir()
    write_jsonl(tmp_path / "records" / "train.jsonl", records)
    with pytest.raises(DataError, match="packing='full' lays text into rows"):
        Batches(Corpus(tmp_path), tokenizer=tokenizer, config=PACKED)


def test_an_objective_that_compares_whole_answers_is_refused():
    with pytest.raises(ValidationError, match="'dpo' reads one record a row"):
        train.Config.model_validate(
            {
                "stage": "train",
                "corpus": "corpus",
                "model": "start",
                "objective": {"kind": "dpo"},
                "batching": {"packing": "full", "select": "preferences"},
                "training": {"max_steps": 1},
            }
        )


def test_a_student_is_distilled_from_packed_rows(corpus, tokenizer, moe, dense_config, tmp_path):
    for name in ("teacher", "plain", "packed"):
        (tmp_path / name).mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")
    inputs = {
        "teacher": (make_artifact(tmp_path / "teacher", "checkpoint"),),
        "corpus": (make_artifact(corpus, "corpus"),),
    }
    losses = {}
    for name, packing in (("plain", "none"), ("packed", "full")):
        config = distill.Config.model_validate(
            {
                "stage": "distill",
                "student": dense_config.model_dump(),
                "teacher": "teacher",
                "corpus": "corpus",
                "objective": {"kind": "soft_target"},
                "batching": {
                    "per_device_train_batch_size": 4,
                    "gradient_accumulation_steps": 2,
                    "packing": packing,
                },
                "training": {"max_steps": 3, "learning_rate": 0.001},
            }
        )
        work = Work(name, tmp_path / name, tmp_path / f"{name}-state", inputs)
        losses[name] = distill.run(config, work=work)["loss"]
    assert losses["packed"] == pytest.approx(losses["plain"], rel=1e-4)
