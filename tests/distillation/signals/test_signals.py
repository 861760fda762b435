"""Recorded signals against the live teacher, and what refuses to be mixed up."""

import json

import pytest
import torch

from limbeck.contracts.artifacts import Artifact, Work, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.features.config import Matching
from limbeck.distillation.features.layer_mapping import resolve_layers
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.targets import FullLogits, TopK
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import Needs
from limbeck.stages import record
from tests.support.forward_kl import forward_kl, forward_kl_with_tail

BATCHING = BatchingConfig(per_device_train_batch_size=3, gradient_accumulation_steps=1)


def as_artifact(folder, kind) -> Artifact:
    (folder / "manifest.json").write_text(
        json.dumps(
            {
                "name": folder.name,
                "kind": kind,
                "stage": "",
                "key": "",
                "content_hash": "1",
                "parents": {},
                "sources": {},
                "recipe": {},
                "versions": {},
                "files": {},
                "metrics": {},
                "seconds": 0,
            }
        )
    )
    return read_artifact(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory, corpus, moe_config, tokenizer):
    """A teacher's folder, the corpus, and its signals with most tokens kept."""
    root = tmp_path_factory.mktemp("signals")
    teacher = moe_config.build(tokenizer=tokenizer, seed=0).eval()
    save_checkpoint(teacher, tokenizer=tokenizer, folder=root / "teacher")
    inputs = {
        "teacher": (as_artifact(root / "teacher", "checkpoint"),),
        "corpus": (as_artifact(corpus, "corpus"),),
    }
    config = record.Config(
        stage="record",
        teacher="teacher",
        corpus="corpus",
        targets={"kind": "plain", "count": 12, "temperatures": (1.0, 2.0)},
        layers=(1, 2),
        batching=BATCHING,
        shard_records=3,
    )
    (root / "signals").mkdir()
    metrics = record.run(config, work=Work("signals", root / "signals", root / "state", inputs))
    return teacher, inputs, as_artifact(root / "signals", "signals"), metrics


def open_batches(inputs, config=BATCHING):
    corpus = Corpus(inputs["corpus"][0].path)
    return Batches(corpus, tokenizer=load_tokenizer(corpus.tokenizer_path), config=config)


def batch_of(corpus, tokenizer):
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING)
    return batches, batches.batch([6, 1, 4])


def test_signals_line_up_with_the_live_teacher(made, corpus, tokenizer):
    teacher, inputs, signals, metrics = made
    batches, batch = batch_of(corpus, tokenizer)
    live_teacher = OnlineTeacher(teacher, vocab=len(tokenizer))
    stored = open_teacher(
        [signals], corpus=inputs["corpus"][0], batches=open_batches(inputs), needs=Needs(2.0)
    )
    assert stored is not None
    for each in (live_teacher, stored):
        each.require(layers=(1, 2))
    live, targets = live_teacher(batch), stored(batch)
    output = targets.output
    assert isinstance(output, TopK) and isinstance(live.output, FullLogits)
    top = live.output.logits.topk(12, dim=-1)
    assert torch.equal(output.ids, top.indices)
    expected = top.values - top.values[:, :1]
    torch.testing.assert_close(output.logits, expected, atol=5e-3, rtol=5e-3)
    for ours, theirs in zip(targets.hidden_states, live.hidden_states, strict=True):
        torch.testing.assert_close(ours.float(), theirs, atol=5e-3, rtol=5e-3)
    assert metrics["positions"] == sum(
        int(batches.batch([record_id]).kept.sum()) for record_id in batches.records.ids.tolist()
    )


def test_signals_and_student_meet_by_record_id(made, corpus, tokenizer):
    _, inputs, signals, _ = made
    everything = BATCHING.replace(select="all")
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=everything)
    questions = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING).records.ids
    texts = sorted({*batches.records.ids.tolist()} - {*questions.tolist()})
    assert texts
    given = {"corpus": inputs["corpus"][0], "needs": Needs(2.0)}
    stored = open_teacher([signals], batches=batches, **given)
    batch = batches.batch(questions[-2:].tolist())
    alone = open_teacher([signals], batches=open_batches(inputs), **given)(batch)
    assert torch.equal(stored(batch).output.ids, alone.output.ids)
    with pytest.raises(ArtifactError, match=rf"no signals of record {texts[0]} "):
        stored(batches.batch([int(questions[0]), texts[0]]))


def test_the_student_that_equals_the_teacher_has_no_loss_under_signals(made, corpus, tokenizer):
    teacher, inputs, signals, _ = made
    _, batch = batch_of(corpus, tokenizer)
    live = OnlineTeacher(teacher, vocab=len(tokenizer))(batch)
    stored = open_teacher(
        [signals], corpus=inputs["corpus"][0], batches=open_batches(inputs), needs=Needs(2.0)
    )
    assert stored is not None
    output = stored(batch).output
    assert isinstance(output, TopK) and isinstance(live.output, FullLogits)
    logits = live.output.logits
    same = forward_kl_with_tail(
        student_logits=logits,
        top_logits=output.logits,
        top_ids=output.ids,
        tail=output.tail,
        temperature=2.0,
    )
    other = forward_kl(
        student_logits=torch.zeros_like(logits), teacher_logits=logits, temperature=2.0
    )
    assert abs(same.item()) < 1e-3 * other.item()


@pytest.mark.parametrize(
    ("needs", "batching", "message"),
    [
        (Needs(3.0), BATCHING, "temperature"),
        (Needs(2.0), BATCHING.replace(max_length=16), "max_length"),
        (Needs(2.0), BATCHING.replace(loss_on="all"), "loss_on"),
    ],
)
def test_signals_of_other_settings_are_refused(made, needs, batching, message):
    _, inputs, signals, _ = made
    with pytest.raises(ArtifactError, match=message):
        open_teacher(
            [signals],
            corpus=inputs["corpus"][0],
            batches=open_batches(inputs, batching),
            needs=needs,
        )


def test_layers_by_name_are_over_what_was_recorded_and_attention_is_refused(made, dense):
    _, inputs, signals, _ = made
    teacher = open_teacher(
        [signals], corpus=inputs["corpus"][0], batches=open_batches(inputs), needs=Needs(2.0)
    )
    assert teacher is not None and teacher.layers == (1, 2)
    with pytest.raises(ArtifactError, match="recorded for layer"):
        teacher.require(layers=[7])
    (last,) = resolve_layers([Matching(layers="last")], model=dense, teacher=teacher)
    assert (last.student_layer, last.teacher_layer) == (2, 2)
    attention = Matching(what="attention", measure="kl", layers="last")
    config = SoftTarget(kind="soft_target", matching=(attention,))
    with pytest.raises(ArtifactError, match="no attention and no values"):
        config.build(ObjectiveContext(dense, teacher=teacher))
