"""A corpus's questions, asked by lm-eval and by Limbeck: the same answers and verdicts."""

import dataclasses
import json

import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.evaluation.held_out_questions import read_evaluation
from limbeck.evaluation.tasks import Response, ask, score_response
from limbeck.harness.export_tasks import export_tasks
from limbeck.harness.run import Settings, run_harness
from limbeck.harness.scoring import score_answer, score_choice
from limbeck.runtimes import open_answerer
from tests.support import tiny_recipe

NUM_QUESTIONS, NUM_TOKENS = 6, 8


def as_document(question, **more):
    return {"asked": json.dumps(dataclasses.asdict(question), ensure_ascii=False), **more}


def test_a_choice_is_scored_by_sum_and_by_mean():
    question = Question("1", "choice", "?", ("long",), "choice", options=("a", "long"))
    document = as_document(question, choice_tokens=[2, 6])
    assert score_choice(document, [(-4.0, False), (-6.0, False)]) == {
        "acc": 0.0,
        "acc_per_token": 1.0,
    }


def test_an_answer_is_scored_by_limbecks_verdict_and_literally():
    question = Question("1", "recall", "?", ("0.5 g",), "single")
    found = score_answer(as_document(question), ["500 mg"])
    assert found == {"correct": 1.0, "exact_match": 0.0}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    runs = tiny_recipe.runs() / "tiny"
    folder = tmp_path_factory.mktemp("exported") / "own"
    corpus = Corpus(runs / "corpus")
    tasks = export_tasks(
        corpus, folder=folder, max_questions=NUM_QUESTIONS, max_new_tokens=NUM_TOKENS
    )
    report = run_harness(
        [runs / "student", runs / "bundle"],
        tasks=list(tasks.num_questions),
        settings=Settings(task_folder=folder),
    )
    found = read_evaluation(corpus, source="auto", max_questions=NUM_QUESTIONS).questions
    return tasks, report, found


def test_every_question_is_exported(exported):
    tasks, _, questions = exported
    assert sum(tasks.num_questions.values()) == len(questions) and not tasks.left_out
    assert {"own_choice", "own_recall"} <= set(tasks.num_questions)


def test_both_ask_the_same_and_agree(exported):
    tasks, report, questions = exported
    by_id = {question.id: question for question in questions}
    for model in report.models:
        answerer = open_answerer(tiny_recipe.runs() / "tiny" / model.name, num_threads=1)
        for task in tasks.num_questions:
            for sample in model.samples[task]:
                question = by_id[sample["doc"]["id"]]
                (own,) = ask(answerer, (question,), max_new_tokens=NUM_TOKENS)
                verdict = score_response(question, own).correct
                if question.form != "choice":
                    assert sample["filtered_resps"] == [own.text]
                    assert sample["correct"] == verdict
                    continue
                sums = [log for ((log, _),) in sample["resps"]]
                own_sums = [
                    mean * num
                    for mean, num in zip(
                        own.option_scores, sample["doc"]["choice_tokens"], strict=True
                    )
                ]
                # lm-eval counts the white space that opens the answer, too: alike for all options.
                shifts = [found - expected for found, expected in zip(sums, own_sums, strict=True)]
                assert shifts == pytest.approx([shifts[0]] * len(shifts), abs=1e-3)
                assert shifts[0] <= 1e-3
                best = question.options[own_sums.index(max(own_sums))]
                assert sample["acc"] == score_response(question, Response(best, 1.0)).correct


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match="no corpus"):
        export_tasks(Corpus(tmp_path), folder=tmp_path / "out", max_questions=3, max_new_tokens=3)
