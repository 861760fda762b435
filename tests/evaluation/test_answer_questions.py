"""Asking: the questions drawn, leaks refused, and answers that survive a kill."""

import json

import pytest

from limbeck.contracts.answerer import apply_here
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError, LeakError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import Record, read_records, write_jsonl
from limbeck.evaluation.answer_questions import (
    answer_all,
    make_batches,
    read_questions,
)
from tests.support.fake_answerer import QUESTIONS, LookUp


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "questions").mkdir(parents=True)
    (folder / "records").mkdir()
    for task in sorted({question.task for question in QUESTIONS}):
        chosen = [question for question in QUESTIONS if question.task == task]
        write_jsonl(folder / "questions" / f"{task}.jsonl", chosen)
    record = Record("1", "高血压看哪个科？", "心血管内科", "g", "pack")
    write_jsonl(folder / "records" / "train.jsonl", [record])
    return folder


def write(**changes):
    question = {"id": "a", "task": "recall", "question": "?", "answers": ["x"], "form": "single"}
    return json.dumps(question | changes)


def compare(corpus):
    path = corpus / "records" / "train.jsonl"
    return check_leaks(read_records(path), held_out=QUESTIONS, path=path)


def ignore(num, note=""):
    pass


def test_every_question_is_read_and_counted(corpus):
    found = read_questions(Corpus(corpus), max_questions=10)
    assert {question.id for question in found.questions} == {item.id for item in QUESTIONS}
    assert found.available == {"choice": 1, "recall": 2, "refusal": 1, "triage": 2}


def test_the_questions_drawn_do_not_depend_on_their_order(corpus):
    first = read_questions(Corpus(corpus), max_questions=1).questions
    path = corpus / "questions" / "recall.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert read_questions(Corpus(corpus), max_questions=1).questions == first
    assert len(first) == 4


def test_a_corpus_without_questions_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no questions"):
        read_questions(Corpus(tmp_path), max_questions=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"id": "a"}', "not a question"),
        (write(task="other"), "task 'other'"),
        (write(answers=[]), "cannot be scored"),
        (write(form="essay"), "'essay'"),
        (write(form="choice", options=["y"]), "not among"),
    ],
)
def test_a_broken_question_is_named_with_its_line(corpus, line, message):
    path = corpus / "questions" / "recall.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_questions(Corpus(corpus), max_questions=10)
    assert (caught.value.path, caught.value.line) == (str(path), 3)


def test_repeated_ids_are_refused(corpus):
    path = corpus / "questions" / "recall.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(DataError, match="repeat an id"):
        read_questions(Corpus(corpus), max_questions=10)


def test_training_on_a_question_is_refused_even_in_other_punctuation(corpus):
    assert compare(corpus) == 1
    record = Record("2", "高血压 去医院看什么科?", "心血管内科", "g", "pack")
    write_jsonl(corpus / "records" / "train.jsonl", [record])
    with pytest.raises(LeakError, match=r"question 'r1'.*is held out") as caught:
        compare(corpus)
    assert caught.value.line == 1


def test_a_corpus_without_training_records_is_refused(corpus):
    (corpus / "records" / "train.jsonl").unlink()
    with pytest.raises(DataError, match="missing"):
        compare(corpus)


def test_batches_hold_one_task_and_one_form(corpus):
    questions = read_questions(Corpus(corpus), max_questions=10).questions
    batches = make_batches(questions, batch_size=2)
    assert tuple(question for batch in batches for question in batch) == questions
    assert all(len({(item.task, item.form) for item in batch}) == 1 for batch in batches)


def answer(corpus, state, opener):
    questions = read_questions(Corpus(corpus), max_questions=10).questions
    batches = make_batches(questions, batch_size=2)
    return answer_all(
        open_model=lambda: apply_here(opener()),
        batches=batches,
        max_new_tokens=64,
        state=state,
        advance=ignore,
    )


def refuse():
    raise AssertionError("the model was opened although every answer is there")


@pytest.mark.parametrize("cut", [0, 2, 40, 400, 1000])
def test_a_killed_run_goes_on_with_equal_answers(corpus, tmp_path, cut):
    whole = answer(corpus, tmp_path / "a", lambda: LookUp(tmp_path, num_threads=1))
    assert answer(corpus, tmp_path / "a", refuse) == whole
    kept = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(kept[: len(kept) - cut] if cut else b"")
    model = LookUp(tmp_path, num_threads=1)
    assert answer(corpus, tmp_path / "b", lambda: model) == whole
    assert (tmp_path / "b").read_bytes() == kept
    if cut == 40:
        assert len(model.asked) < 5
