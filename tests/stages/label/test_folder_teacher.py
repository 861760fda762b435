"""A teacher in a folder answers the questions that have no answer, or all of training."""

import dataclasses
import json
import multiprocessing
import shutil

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError, DataError, EndpointError, LeakError
from limbeck.contracts.records import Record
from limbeck.data.corpus.unlabelled import remove_answer
from limbeck.distillation import local_labels
from limbeck.models.checkpoints import load_model
from limbeck.runtimes import open_answerer
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.stages import label
from tests.support import tiny_recipe
from tests.support.artifacts import make_artifact
from tests.support.forked_children import fork_children
from tests.support.tiny_checkpoints import make_checkpoint

NUM_BARE = 16
MAX_TOKENS = 30


@pytest.fixture(scope="module", params=["checkpoint", "bundle"])
def teacher(request, tmp_path_factory):
    """Random weights, of which some answers end and others do not."""
    folder = tmp_path_factory.mktemp("teacher")
    make_checkpoint(folder / "checkpoint", "llama")
    if request.param == "bundle":
        OnnxRuntime().write(folder / "checkpoint", folder / "bundle")
    return make_artifact(folder / request.param, request.param)


@pytest.fixture
def corpus(tmp_path):
    """The tiny corpus, of which some training questions lost their answers."""
    runs = tiny_recipe.copy_runs(tmp_path / "runs", entries=("corpus",))
    found = Corpus((runs / "tiny" / "corpus").resolve())
    train = list(found.records("train"))
    bare = [item for item in train if item.question][:NUM_BARE]
    found.write_records("train", [item for item in train if item not in bare])
    found.write_unlabelled([remove_answer(item) for item in bare])
    return found


def run(corpus, teacher, tmp_path, name="made", **fields):
    fields = {"max_new_tokens": MAX_TOKENS, "max_failed_ratio": 1.0, "batch_size": 4, **fields}
    config = label.Config.model_validate(
        {"stage": "label", "corpus": "corpus", "teacher": "teacher", **fields}
    )
    folder = tmp_path / name
    folder.mkdir()
    inputs = {
        "corpus": (make_artifact(corpus.folder, "corpus"),),
        "teacher": (teacher,),
        "student": (teacher,),
    }
    work = Work(name, folder, tmp_path / "state", inputs, tmp_path / f"{name}-state")
    return Corpus(folder), label.run(config, work=work)


def test_questions_without_an_answer_get_the_teachers(corpus, teacher, tmp_path):
    made, metrics = run(corpus, teacher, tmp_path)
    answerer = open_answerer(teacher.path, num_threads=1)
    bare, train = list(corpus.unlabelled()), list(corpus.records("train"))
    expected = answerer.answer([item.question for item in bare], max_new_tokens=MAX_TOKENS)
    ended = {
        item.id: answer.text.strip()
        for item, answer in zip(bare, expected, strict=True)
        if answer.num_tokens < MAX_TOKENS and answer.text.strip()
    }
    assert 0 < len(ended) < NUM_BARE
    found = list(made.records("train"))
    assert found[: len(train)] == train
    assert {item.id: item.answer for item in found[len(train) :]} == ended
    assert {item.id for item in made.unlabelled()} == {item.id for item in bare} - {*ended}
    assert metrics["asked"] == NUM_BARE and metrics["labelled"] == len(ended)
    card = json.loads(made.card_path.read_text(encoding="utf-8"))
    assert card["labelled_by"] == {"model": "teacher", "kind": "answers"}


def test_a_checkpoint_answers_in_bfloat16_and_a_bundle_does_not(corpus, teacher, tmp_path):
    if teacher.manifest.kind == "bundle":
        with pytest.raises(CheckpointError, match="computes as it was exported"):
            run(corpus, teacher, tmp_path, precision="bfloat16")
        return
    made, _ = run(corpus, teacher, tmp_path, precision="bfloat16", min_confidence_ratio=0.0)
    model = load_model(teacher.path, dtype=torch.bfloat16)
    answerer = open_answerer(teacher.path, num_threads=1, precision="bfloat16")
    assert answerer.model.model.dtype == model.dtype
    bare = list(corpus.unlabelled())
    expected = answerer.answer([item.question for item in bare], max_new_tokens=MAX_TOKENS)
    ended = [item.text.strip() for item in expected if item.num_tokens < MAX_TOKENS]
    found = {item.id: item.answer for item in made.records("train")}
    assert [found[item.id] for item in bare if item.id in found] == [text for text in ended if text]
    # Kept apart from answers in float32.
    assert [path.name.count(".bfloat16") for path in tmp_path.glob("made-state/*.jsonl")] == [1]


def test_unsure_answers_are_not_taken_and_are_no_fault(corpus, teacher, tmp_path):
    _, metrics = run(corpus, teacher, tmp_path)
    ended = metrics["labelled"]
    # What is cut off counts against the limit, and what is unsure does not.
    made, metrics = run(
        corpus, teacher, tmp_path, name="sure", min_confidence_ratio=1.0, max_failed_ratio=0.99
    )
    assert metrics["labelled"] == 0 and metrics["failed"]["unsure"] == ended > 0
    assert len(list(made.unlabelled())) == NUM_BARE


def test_without_bare_questions_all_of_training_is_answered(corpus, teacher, tmp_path):
    corpus.write_unlabelled([])
    made, metrics = run(corpus, teacher, tmp_path, failed="keep")
    before, after = list(corpus.records("train")), list(made.records("train"))
    assert [item.id for item in after] == [item.id for item in before]
    assert metrics["asked"] == sum(bool(item.question) for item in before)
    assert metrics["failed"]["too_long"] > 0
    changed = sum(old.answer != new.answer for old, new in zip(before, after, strict=True))
    assert changed <= metrics["labelled"]


def test_a_killed_run_asks_only_what_is_left(corpus, teacher, tmp_path, monkeypatch):
    whole, _ = run(corpus, teacher, tmp_path, name="whole")
    state = next((tmp_path / "whole-state").glob("answers.*.jsonl"))
    lines = state.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "again-state").mkdir()
    cut = "".join(lines[:3]) + lines[3][:20]
    (tmp_path / "again-state" / state.name).write_text(cut, encoding="utf-8")
    answer = local_labels._answer
    asked = []
    monkeypatch.setattr(
        local_labels,
        "_answer",
        lambda answerer, draws, **rest: asked.extend(draws) or answer(answerer, draws, **rest),
    )
    again, _ = run(corpus, teacher, tmp_path, name="again")
    assert len(asked) == NUM_BARE - 3
    paths = ("train.jsonl", "unlabelled.jsonl")
    for path in paths:
        first, second = (item.folder / "records" / path for item in (whole, again))
        assert first.is_file() == second.is_file()
        assert not first.is_file() or first.read_bytes() == second.read_bytes()


def test_two_processes_give_the_answers_of_one(corpus, teacher, tmp_path, monkeypatch):
    fork_children(set_attribute=monkeypatch.setattr)
    first, metrics = run(corpus, teacher, tmp_path, name="one", num_threads=1)
    second, again = run(corpus, teacher, tmp_path, name="two", num_threads=1, num_processes=2)
    assert metrics == again
    one, two = (next((tmp_path / path).glob("answers.*")) for path in ("one-state", "two-state"))
    assert one.read_bytes() == two.read_bytes()
    assert list(first.records("train")) == list(second.records("train"))
    assert not multiprocessing.active_children()


SAMPLED = {"kind": "answers", "samples": 4, "temperature": 2.0, "keep": "all"}


def test_samples_are_records_and_the_same_in_any_batch(corpus, teacher, tmp_path):
    whole, metrics = run(corpus, teacher, tmp_path, name="whole", write=SAMPLED, batch_size=64)
    bare = {item.id for item in corpus.unlabelled()}
    found = [item for item in whole.records("train") if item.id in bare]
    drawn = list(whole.records("train"))[len(list(corpus.records("train"))) :]
    assert len(drawn) == metrics["answers_kept"] > metrics["labelled"] == len(found) > 0
    assert len({item.id for item in drawn}) == len(drawn)
    assert {item.question for item in drawn} == {item.question for item in found}
    # Killed within a question's samples, and gone on with in other batches.
    state = next((tmp_path / "whole-state").glob("answers.*.jsonl"))
    lines = state.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 4 * NUM_BARE
    (tmp_path / "again-state").mkdir()
    (tmp_path / "again-state" / state.name).write_text("".join(lines[:6]), encoding="utf-8")
    again, _ = run(corpus, teacher, tmp_path, name="again", write=SAMPLED, batch_size=3)
    assert [(item.id, item.answer) for item in again.records("train")] == [
        (item.id, item.answer) for item in whole.records("train")
    ]
    best = SAMPLED | {"keep": "best", "min_agreement_ratio": 1.0}
    made, metrics = run(corpus, teacher, tmp_path, name="again2", write=best)
    assert metrics["failed"]["disagreeing"] + metrics["labelled"] <= NUM_BARE
    assert len(list(made.unlabelled())) == NUM_BARE - metrics["labelled"]


@pytest.mark.parametrize(
    "fields",
    [
        {"choose": {"kind": "random", "max_questions": 5}},
        {"choose": {"kind": "diverse", "max_questions": 5}},
        {"choose": {"kind": "uncertain", "max_questions": 5}, "student": "student"},
    ],
    ids=["random", "diverse", "uncertain"],
)
def test_what_is_not_chosen_stays_without_an_answer(fields, corpus, teacher, tmp_path):
    made, metrics = run(corpus, teacher, tmp_path, **fields)
    assert metrics["asked"] == 5 and metrics["not_chosen"] == NUM_BARE - 5
    assert len(list(made.unlabelled())) == NUM_BARE - metrics["labelled"]
    again, _ = run(corpus, teacher, tmp_path, name="again", **fields)
    assert list(again.records("train")) == list(made.records("train"))


def test_a_choice_needs_questions_without_an_answer(corpus, teacher, tmp_path):
    corpus.write_unlabelled([])
    with pytest.raises(DataError, match="every training question of the corpus has an answer"):
        run(corpus, teacher, tmp_path, choose={"kind": "random", "max_questions": 5})


def test_the_same_id_with_another_question_is_asked_anew(corpus, teacher, tmp_path):
    first, *_ = corpus.unlabelled()
    answers = []
    for name, question in (("one", "头晕怎么办？"), ("two", "咳嗽怎么办？")):
        corpus.write_unlabelled([dataclasses.replace(first, question=question)])
        if answers:
            shutil.copytree(tmp_path / "one-state", tmp_path / "two-state")
        with pytest.raises(EndpointError, match="1 of 1 records"):
            run(corpus, teacher, tmp_path, name=name, max_new_tokens=3)
        (state,) = (tmp_path / f"{name}-state").glob("answers.*.jsonl")
        answers.append(len(state.read_text(encoding="utf-8").splitlines()))
    assert answers == [1, 2]


def test_a_question_of_evaluation_is_not_asked(corpus, teacher, tmp_path):
    asked = next(corpus.questions())
    corpus.write_unlabelled([Record("x", asked.question, "", "x", "test")])
    with pytest.raises(LeakError, match="held out"):
        run(corpus, teacher, tmp_path)


def test_too_many_failures_stop_the_run_and_keep_its_answers(corpus, teacher, tmp_path):
    with pytest.raises(EndpointError, match=r"cut_off.*is kept in .*answers\."):
        run(corpus, teacher, tmp_path, max_new_tokens=1, max_failed_ratio=0.0)
    assert list((tmp_path / "made-state").glob("answers.*.jsonl"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "name one teacher"),
        ({"teacher": "t", "endpoint": {"url": "http://localhost", "model": "m"}}, "name one"),
        ({"teacher": "t", "write": {"kind": "logprobs"}}, "writes answers, not logprobs"),
        ({"teacher": "t", "student": "s"}, "choose 'all' does not ask"),
        ({"teacher": "t", "choose": {"kind": "random"}}, "max_questions"),
        (
            {"endpoint": {"url": "http://localhost", "model": "m"}, "min_confidence_ratio": 0.5},
            "come without a confidence",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        label.Config.model_validate({"stage": "label", "corpus": "c", **fields})
