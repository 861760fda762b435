"""What a distillation is refused for, each by a named error that says what to do."""

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import ArtifactError, DataError, TrainingError
from limbeck.contracts.records import read_records, write_jsonl
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.distillation.diagnostics.probe import Probe
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages import distill, record
from tests.support.artifacts import make_artifact

BATCHING = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


@pytest.fixture
def make(tmp_path, corpus, moe, tokenizer, dense_config):
    """Runs a distillation, after a change of its teacher's folder or of its corpus."""
    for name in ("teacher", "signals", "student"):
        (tmp_path / name).mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")

    def run(*, teacher="teacher", read=corpus, **changes):
        inputs = {
            "teacher": (make_artifact(tmp_path / teacher, teacher_kind(teacher)),),
            "corpus": (make_artifact(read, "corpus"),),
        }
        config = distill.Config.model_validate(
            {
                "stage": "distill",
                "student": dense_config.model_dump(),
                "teacher": teacher,
                "corpus": "corpus",
                "objective": {"kind": "soft_target"},
                "batching": BATCHING,
                "training": {"max_steps": 1, "learning_rate": 0.001},
            }
            | changes
        )
        work = Work("student", tmp_path / "student", tmp_path / "state", inputs)
        return distill.run(config, work=work)

    return run


def teacher_kind(name):
    return "signals" if name == "signals" else "checkpoint"


def record_signals(folder, corpus):
    inputs = {
        "teacher": (make_artifact(folder / "teacher", "checkpoint"),),
        "corpus": (make_artifact(corpus, "corpus"),),
    }
    config = record.Config.model_validate(
        {"stage": "record", "teacher": "teacher", "corpus": "corpus", "batching": BATCHING}
    )
    record.run(config, work=Work("signals", folder / "signals", folder / "recording", inputs))


@pytest.mark.parametrize("weight", [0.7, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_teacher_that_is_not_finite(make, moe, tokenizer, tmp_path, weight, value):
    with torch.no_grad():
        moe.model.norm.weight[3] = value
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")
    with pytest.raises(TrainingError, match=r"teacher's 'logits' hold .* records \[\d+") as found:
        make(objective={"kind": "soft_target", "weight": weight})
    assert "check the teacher's weights" in str(found.value)


def test_a_student_that_is_not_finite_is_not_the_teachers_fault(make):
    with pytest.raises(TrainingError, match="lower learning_rate") as found:
        make(
            training={"max_steps": 3, "learning_rate": 1e30, "warmup_steps": 0, "weight_decay": 0.0}
        )
    assert "teacher" not in str(found.value)


def test_a_teacher_of_another_vocabulary(make, moe, tmp_path):
    folder = tmp_path / "other"
    train_tokenizer(["完全不同的字"] * 3, folder=folder, config=TokenizerConfig(min_count=1))
    save_checkpoint(moe, tokenizer=load_tokenizer(folder), folder=tmp_path / "teacher")
    with pytest.raises(
        ArtifactError, match=r"tokenizer differs from the corpus's \(token .* prepare"
    ):
        make()


def test_signals_of_a_corpus_that_has_changed(make, corpus, tmp_path):
    record_signals(tmp_path, corpus)
    assert make(teacher="signals")["steps"] == 1
    newer = copy_corpus(corpus, tmp_path / "newer")
    with pytest.raises(ArtifactError, match=r"with corpus 'hash of .*record them again"):
        make(teacher="signals", read=newer)


def copy_corpus(corpus, folder, *, change=lambda item: item):
    (folder / "records").mkdir(parents=True)
    for path in (corpus / "records").iterdir():
        write_jsonl(folder / "records" / path.name, map(change, read_records(path)))
    load_tokenizer(corpus / "tokenizer").save_pretrained(folder / "tokenizer")
    return folder


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer(make, corpus, tmp_path, answer):
    def change(item):
        return dataclasses.replace(item, answer=answer) if item.id == "哮喘-1" else item

    empty = copy_corpus(corpus, tmp_path / "empty", change=change)
    with pytest.raises(DataError, match="record 哮喘-1: its answer is empty"):
        make(read=empty)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive(make, temperature):
    with pytest.raises(ValidationError, match="must stay above 0"):
        make(objective={"kind": "soft_target", "temperature": temperature})


def test_held_out_questions_expose_a_student_with_one_answer(make, corpus, tmp_path, monkeypatch):
    def change(item):
        return dataclasses.replace(item, question=item.question and f"{item.question}请问")

    other = copy_corpus(corpus, tmp_path / "other")
    records = [item for item in read_records(corpus / "records" / "train.jsonl") if item.question]
    many = [
        dataclasses.replace(change(item), id=f"{item.id}-{copy}")
        for item in records
        for copy in range(4)
    ]
    write_jsonl(other / "records" / "validation.jsonl", many)
    asked = []

    def answer(model, prompts):
        asked.extend(map(tuple, prompts))
        return [(7, 7) for _ in prompts]

    monkeypatch.setattr("limbeck.distillation.diagnostics.probe._answer", answer)
    found = make(read=other)["warnings"]
    assert any("gives one answer to 100%" in sentence for sentence in found)
    word = load_tokenizer(corpus / "tokenizer")("请问", add_special_tokens=False)["input_ids"]
    assert len(asked) == distill.DIAGNOSTIC_RECORDS == len(many)
    assert all(set(word) <= set(prompt) for prompt in asked)


def test_without_held_out_records_training_questions_are_asked(make, corpus, tmp_path, monkeypatch):
    other = copy_corpus(corpus, tmp_path / "other")
    write_jsonl(other / "records" / "validation.jsonl", [])
    seen = []
    before = Probe.before
    monkeypatch.setattr(Probe, "before", lambda self: seen.append(self) or before(self))
    make(read=other)
    assert torch.equal(seen[0].questions.input_ids, seen[0].batch.input_ids)
