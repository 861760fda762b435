"""A corpus's questions, asked by lm-eval and by Limbeck: the same answers and verdicts."""

import dataclasses
import json
import shutil
from math import exp, log, log1p

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.data.corpus.train_tokenizer import CHAT_TEMPLATE
from limbeck.evaluation.held_out_questions import read_evaluation
from limbeck.evaluation.tasks import ask, score_response
from limbeck.harness.export_tasks import export_tasks
from limbeck.harness.run import Settings, run_harness
from limbeck.harness.scoring import read_question, score_answer, score_choice, sum_options
from limbeck.runtimes import open_answerer
from tests.support import tiny_recipe

NUM_QUESTIONS, NUM_TOKENS = 6, 8


def as_document(question, **more):
    return {"asked": json.dumps(dataclasses.asdict(question), ensure_ascii=False), **more}


def test_a_choice_is_scored_by_sum_and_by_mean():
    question = Question("1", "choice", "?", ("long",), "choice", options=("a", "long"))
    document = as_document(question, choice_tokens=[2, 6], ends=["."], options=["a", "long"])
    both = [(-4.0, False), (-6.0, False)]
    assert score_choice(document, both) == {"acc": 0.0, "acc_per_token": 1.0}
    document["ends"] = [".", "!"]
    ended = [(-4.0, False), (-9.0, False), (-4.0 + log(0.25), False), (-4.0 + log(0.5), False)]
    assert score_choice(document, ended) == {"acc": 0.0, "acc_per_token": 1.0}
    found = sum_options(document, [*ended, (-3.0, False)])
    assert found == pytest.approx([-1 + log1p(exp(-5)), -1 + log(0.75)])


def test_an_answer_is_scored_by_limbecks_verdict_and_literally():
    question = Question("1", "recall", "?", ("0.5 g",), "single")
    document = as_document(question, opening="<think>\n\n</think>\n\n")
    found = score_answer(document, [f"{document['opening']}500 mg"])
    assert found == {"correct": 1.0, "exact_match": 0.0}


def test_questions_that_an_earlier_version_exported_are_refused():
    question = Question("q7", "recall", "?", ("0.5 g",), "single")
    with pytest.raises(DataError, match=r"'q7' has no 'opening'.*export the tasks again"):
        score_answer(as_document(question, id="q7"), ["500 mg"])


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
                results = [result for (result,) in sample["resps"]]
                assert find_means(sample["doc"], results) == pytest.approx(
                    own.option_scores, abs=1e-4
                )
                assert sample["acc_per_token"] == verdict


def find_means(document, results):
    sums = sum_options(document, results)
    return [log / num for log, num in zip(sums, document["choice_tokens"], strict=True)]


@pytest.mark.parametrize(("line", "opening"), [("", " "), ("\n", "<think>\n\n</think>\n\n")])
def test_what_a_template_writes_before_an_answer_counts_for_none(
    line, opening, tmp_path, monkeypatch
):
    """As Llama 2's blank, and as Qwen3's line break and empty thought."""
    for name in ("corpus", "student"):
        shutil.copytree(tiny_recipe.runs() / "tiny" / name, tmp_path / name)
    template = CHAT_TEMPLATE.replace("<|assistant|>", "<|assistant|>" + line)
    template = template.replace(
        "{{ message['content'] }}<|end", opening + "{{ message['content'] }}<|end"
    )
    assert template.count(opening) == 1 or opening == " "
    corpus = Corpus(tmp_path / "corpus")
    for folder in (corpus.tokenizer_path, tmp_path / "student"):
        (folder / "chat_template.jinja").write_text(template)
    export_tasks(corpus, folder=tmp_path / "own", max_questions=3, max_new_tokens=1)
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    samples = simple_evaluate(
        model=HFLM(pretrained=str(tmp_path / "student"), device="cpu", dtype="float32"),
        tasks=["own_choice"],
        task_manager=TaskManager(include_path=str(tmp_path / "own"), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )["samples"]["own_choice"]
    answerer = open_answerer(tmp_path / "student", num_threads=1)
    for sample in samples:
        (own,) = ask(answerer, (read_question(sample["doc"]),), max_new_tokens=1)
        results = [result for (result,) in sample["resps"]]
        assert find_means(sample["doc"], results) == pytest.approx(own.option_scores, abs=1e-4)


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match="no corpus"):
        export_tasks(Corpus(tmp_path), folder=tmp_path / "out", max_questions=3, max_new_tokens=3)
