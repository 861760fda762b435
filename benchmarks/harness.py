"""lm-evaluation-harness beside Limbeck's own evaluation: the same models, the same questions.

The tiny chain of the tests is made, its corpus's questions are exported as tasks, and both
evaluations ask them. What is compared is every answer and every verdict; seconds are given, and say
little at this size.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reporting import environment, parse_options, report

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.records import Question
from limbeck.evaluation.answer_questions import make_batches
from limbeck.evaluation.held_out_questions import read_evaluation
from limbeck.evaluation.tasks import Response, ask, score_response
from limbeck.harness.export_tasks import export_tasks
from limbeck.harness.run import Settings, run_harness
from limbeck.harness.scoring import sum_options
from limbeck.pipeline.run import run as run_recipe
from limbeck.runtimes import open_answerer

RECIPE = Path(__file__).parents[1] / "recipes" / "tests" / "tiny.yaml"
MODELS = ("teacher", "student", "int8", "bundle")
NUM_TOKENS = 16
LONGER = (
    "corpus.sources.0.max_records=1500",
    "corpus.sources.0.facts.recall_questions=40",
    "corpus.sources.0.facts.choice_questions=60",
    "pretrained.model.hidden_size=48",
    "teacher.training.max_steps=400",
    "teacher.training.learning_rate=0.01",
    "teacher.batching.per_device_train_batch_size=16",
    "student.training.max_steps=200",
    "student.student.hidden_size=48",
    "student.training.learning_rate=0.01",
)
"""Changes after which some answers are right; the tests' own recipe trains four steps."""


def answer(folder: Path, questions: Sequence[Question]) -> dict[str, Response]:
    """Limbeck's own responses, by the question's id."""
    answerer = open_answerer(folder, num_threads=1)
    found = {}
    for batch in make_batches(questions, batch_size=16):
        responses = ask(answerer, batch, max_new_tokens=NUM_TOKENS)
        found |= {item.id: given for item, given in zip(batch, responses, strict=True)}
    return found


def compare(
    samples: Sequence[Mapping[str, Any]],
    *,
    own: Mapping[str, Response],
    questions: Mapping[str, Question],
) -> dict[str, Any]:
    """How often both agree on the questions of one task, and the accuracy of each."""
    same_answers = same_verdicts = own_right = harness_right = 0
    largest = 0.0
    for sample in samples:
        question, response = questions[sample["doc"]["id"]], own[sample["doc"]["id"]]
        right = score_response(question, response).correct
        if question.form == "choice":
            sums = sum_options(sample["doc"], [result for (result,) in sample["resps"]])
            expected = [
                mean * num
                for mean, num in zip(
                    response.option_scores, sample["doc"]["choice_tokens"], strict=True
                )
            ]
            shifts = [abs(found - other) for found, other in zip(sums, expected, strict=True)]
            largest = max(largest, *shifts)
            same_answers += sums.index(max(sums)) == expected.index(max(expected))
            found_right = sample["acc_per_token"]
        else:
            same_answers += sample["filtered_resps"] == [response.text]
            found_right = sample["correct"]
        own_right += right
        harness_right += int(found_right)
        same_verdicts += right == bool(found_right)
    return {
        "n": len(samples),
        "own_right": own_right,
        "harness_right": harness_right,
        "same_answers": same_answers,
        "same_verdicts": same_verdicts,
        "largest_nats": largest,
    }


def run(folder: Path, *, max_questions: int, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row for each model and task."""
    recipe = load_recipe(RECIPE, overrides=overrides)
    made = run_recipe(recipe, runs=folder / "runs", report=lambda name, text: None)
    corpus = Corpus(made["corpus"].path)
    tasks = export_tasks(
        corpus,
        folder=folder / "tasks",
        max_questions=max_questions,
        max_new_tokens=NUM_TOKENS,
    )
    found = read_evaluation(corpus, source="auto", max_questions=max_questions).questions
    questions = {question.id: question for question in found}
    rows = []
    for name in MODELS:
        path = made[name].path
        started = time.perf_counter()
        own = answer(path, found)
        own_seconds = time.perf_counter() - started
        started = time.perf_counter()
        (model,) = run_harness(
            [path], tasks=list(tasks.num_questions), settings=Settings(task_folder=folder / "tasks")
        ).models
        harness_seconds = time.perf_counter() - started
        for task in tasks.num_questions:
            row = compare(model.samples[task], own=own, questions=questions)
            seconds = {"own_seconds": own_seconds, "harness_seconds": harness_seconds}
            rows.append({"model": name, "task": task} | row | seconds)
    return rows


def main() -> None:
    """Measure, print, write."""
    options = parse_options("lm-evaluation-harness and Limbeck on the same questions")
    machine = environment()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(
            Path(folder),
            max_questions=4 if options.quick else 60,
            overrides=() if options.quick else LONGER,
        )
    total = sum(row["n"] for row in rows)
    ratios = {
        name: sum(row[name] for row in rows) / total for name in ("same_answers", "same_verdicts")
    }
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("model", "task"))


if __name__ == "__main__":
    main()
