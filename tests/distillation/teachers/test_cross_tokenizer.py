"""A teacher with its own tokenizer: what it reads, and how its spans lie."""

import dataclasses

import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.records import read_records
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.losses.config import CrossTokenizer
from limbeck.distillation.losses.cross_tokenizer import find_starts
from limbeck.distillation.teachers.cross_tokenizer import (
    CrossTokenizerTeacher,
    open_cross_tokenizer_teacher,
)
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from tests.support.artifacts import make_artifact
from tests.support.byte_level_tokenizer import train_byte_level


@pytest.fixture(scope="module")
def records(corpus):
    return list(read_records(corpus / "records" / "train.jsonl"))


@pytest.fixture(scope="module")
def other(records):
    return train_byte_level([record.answer for record in records], num_tokens=300)


def open_both(corpus, tokenizer, other, moe_config, records, **changes):
    batching = BatchingConfig.model_validate({"select": "all", **changes})
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=batching)
    teacher = CrossTokenizerTeacher(
        moe_config.build(tokenizer=other, seed=0),
        tokenizer=other,
        student_tokenizer=tokenizer,
        corpus=Corpus(corpus),
        records=dict(enumerate(records)),
        batching=batching,
    )
    return batches, teacher


@pytest.mark.parametrize("loss_on", ["answer", "all"])
@pytest.mark.parametrize("max_length", [512, 14])
def test_both_sides_write_the_same_text_in_every_span(
    corpus, tokenizer, other, moe_config, records, loss_on, max_length
):
    batches, teacher = open_both(
        corpus, tokenizer, other, moe_config, records, loss_on=loss_on, max_length=max_length
    )
    rows = [5, 0, 2, 7]
    batch = batches.batch(rows)
    alignment = teacher(batch).alignment
    labels = batch.targets
    assert len(alignment.student_spans) == len(labels)
    pieces = []
    for spans, tokens, side in (
        (alignment.student_spans, labels, tokenizer),
        (alignment.teacher_spans, alignment.teacher_tokens, other),
    ):
        starts = find_starts(spans)
        assert spans[starts].tolist() == list(range(len(starts)))
        pieces.append([side.decode(tokens[spans == span]) for span in range(len(starts))])
    ends = (tokenizer.eos_token, other.eos_token)
    plain = [
        [piece.replace(end, "") for piece in found] for end, found in zip(ends, pieces, strict=True)
    ]
    assert plain[0] == plain[1]
    assert sum(map(len, plain[0])) > 10
    if max_length == 512:
        # Each answer ends with a span of its own; of plain text the first span is not predicted.
        assert plain[0].count("") == len(rows)
        told = sum(len(records[row].answer) for row in rows if records[row].question)
        assert told <= sum(map(len, plain[0])) < sum(len(records[row].answer) for row in rows)


def test_the_teacher_reads_its_own_template(corpus, tokenizer, other, moe_config, records):
    _, teacher = open_both(corpus, tokenizer, other, moe_config, records)
    read, record = teacher.reads[0], records[0]
    prompt = other.apply_chat_template(
        [{"role": "user", "content": record.question}], add_generation_prompt=True, tokenize=False
    )
    assert other.decode(read.ids) == prompt + record.answer + "</s>"
    assert other.decode(read.ids[read.answer_start :]) == record.answer + "</s>"


def test_with_the_students_tokenizer_the_same_model_is_no_distance_away(
    corpus, tokenizer, moe_config, records
):
    batches, teacher = open_both(corpus, tokenizer, tokenizer, moe_config, records)
    batch = batches.batch([1, 3, 8])
    student = teacher.forward.model
    config = CrossTokenizer(kind="cross_tokenizer", weight=1.0)
    objective = config.build(ObjectiveContext(student, teacher=teacher))
    assert abs(objective(KeptForward(student), batch).sum.item()) < 1e-4
    changed = moe_config.build(tokenizer=tokenizer, seed=4)
    assert objective(KeptForward(changed), batch).sum.item() > 1


def test_what_cannot_be_read_is_refused(
    corpus, tokenizer, other, moe_config, records, tmp_path, monkeypatch
):
    batches, teacher = open_both(corpus, tokenizer, other, moe_config, records)
    batch = batches.batch([1, 3])
    with pytest.raises(ArtifactError, match="other ones than"):
        teacher(dataclasses.replace(batch, record_ids=torch.tensor([1, 4])))
    with pytest.raises(ArtifactError, match="holds record 99"):
        teacher(dataclasses.replace(batch, record_ids=torch.tensor([1, 99])))
    signals = make_artifact(tmp_path / "signals", "signals")
    text = BatchingConfig()
    with pytest.raises(ArtifactError, match="name the teacher's checkpoint"):
        open_cross_tokenizer_teacher(signals, corpus=make_artifact(corpus, "corpus"), batching=text)
    seen = {0: dataclasses.replace(records[0], images=("a.png",))}
    monkeypatch.setattr(
        "limbeck.distillation.teachers.cross_tokenizer.read_selected", lambda *_: seen
    )
    checkpoint = make_artifact(tmp_path / "teacher", "checkpoint")
    with pytest.raises(ArtifactError, match="images: without"):
        open_cross_tokenizer_teacher(
            checkpoint, corpus=make_artifact(corpus, "corpus"), batching=text
        )
