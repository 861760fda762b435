"""What each method of distillation is worth on the test bed, over seeds: accuracy, time, memory.

The rows build on each other: each adds one method to the row above it, except that `unselected`
stands beside `features`, and that `signals` reads recorded targets and so leaves sampled answers
out. Teacher and corpus are those of
`recipes/medical-testbed.yaml`, whose run is named by `--testbed`. Each student is trained in a
process of its own, whose highest memory is reported; a row that is measured is kept, so a stopped
run goes on. Differences are paired by question. Left out: other sizes, and export.
"""

import concurrent.futures
import json
import multiprocessing
import resource
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ablating import RUNS, ask
from progressive import bootstrap
from reporting import environment, make_parser, report

from limbeck.contracts.artifacts import hash_text, read_artifact
from limbeck.contracts.recipe import Recipe, load_recipe
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct

RECIPE = Path("recipes/medical-testbed.yaml")
SEEDS = (0, 1, 2)
STEPS = 600
TASKS = ("recall", "choice", "intent")
MAX_QUESTIONS = 1000
RECORDED = ("signals", "tuned")
WHOLE = load_recipe(RECIPE).entries
STUDENT = WHOLE["student"]["student"]
BATCHING = {key: value for key, value in WHOLE["student"]["batching"].items() if key != "seed"}
MATCHING = [{"student_layer": 4, "teacher_layer": 4}]
ON_POLICY = {"ratio": 0.2, "max_new_tokens": 32}
TUNED = {
    "objective": {
        "temperature": 2.0667,
        "weight": 0.4413,
        "divergence": {"kind": "jensen_shannon"},
        "matching": [{**MATCHING[0], "weight": 0.03383}],
    },
    "training": {"learning_rate": 0.001861},
}
"""Fields of `signals` that a search changed: `limbeck tune`, 8 trials of 100 steps, scored by kept
accuracy on 600 validation records; docs/distillation/tuning.md tells how."""


def list_rows(testbed: Path, *, steps: int = STEPS) -> dict[str, dict[str, Any]]:
    """The training entries of every row, without seeds."""
    shared = {
        "corpus": str(testbed / "corpus"),
        "batching": BATCHING,
        "training": {"max_steps": steps, "learning_rate": 0.003},
    }
    soft = {
        **shared,
        "stage": "distill",
        "student": STUDENT,
        "teacher": str(testbed / "teacher"),
        "objective": {"kind": "soft_target", "temperature": 2.0, "weight": 0.7},
    }
    features = {**soft, "objective": {**soft["objective"], "matching": MATCHING}}
    inherit = {**features, "initialize_from": str(testbed / "teacher")}
    experts = {**inherit, "initialize_experts": "most_used"}
    signals = {**experts, "teacher": str(recorded())}
    return {
        "alone": {
            **shared,
            "stage": "train",
            "model": STUDENT,
            "objective": {"kind": "next_token"},
        },
        "soft": soft,
        "unselected": {**soft, "router_sampling": {"num_samples": 2}},
        "features": features,
        "inherit": inherit,
        "moe_init": experts,
        "on_policy": {**experts, "on_policy": ON_POLICY},
        "signals": signals,
        "tuned": merge(signals, TUNED),
    }


def merge(entry: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with changes, mappings merged."""
    found = dict(entry)
    for key, value in changes.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, Mapping) else value
    return found


def recorded() -> Path:
    """Where the teacher's signals lie."""
    return RUNS / "distillation" / "recorded" / "recorded"


def record(testbed: Path) -> dict[str, Any]:
    """The entry that records the teacher once."""
    return {
        "stage": "record",
        "teacher": str(testbed / "teacher"),
        "corpus": str(testbed / "corpus"),
        "targets": {"kind": "top"},
        "layers": [4],
        "batching": BATCHING,
    }


def train(name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The folder of a trained student, and its process's seconds of a core and most memory in MB.

    Seconds of a core, as other work beside it stretches those of the clock.
    """
    from limbeck.pipeline.run import run  # noqa: PLC0415  (in a process of its own)

    recipe = Recipe(f"distillation/{name}", RECIPE, dict(entries), {})
    made = run(recipe, runs=RUNS, report=lambda entry, text: print(entry, text, flush=True))[name]
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "folder": str(made.path),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
    }


def in_process(name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """`train` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(train, name, entries).result()


def make(row: str, seed: int, *, testbed: Path, steps: int) -> dict[str, Any]:
    """One student's folder and cost; read back where an earlier run has measured it."""
    name = f"{row}-{seed}"
    entry = merge(
        list_rows(testbed, steps=steps)[row],
        {"seed": seed, "training": {"seed": seed}, "batching": {"seed": seed}},
    )
    digest = hash_text(json.dumps(entry, sort_keys=True))[:12]
    kept = RUNS / "distillation" / f"{name}-{digest}.json"
    if not kept.is_file():
        cost = in_process(name, {name: entry})
        kept.write_text(json.dumps(cost), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def ask_all(
    folder: Path, *, testbed: Path, max_questions: int = MAX_QUESTIONS
) -> list[AnsweredQuestion]:
    """A model's answers to all questions of the test bed."""
    return ask(
        read_artifact(folder), corpus=testbed / "corpus", tasks=TASKS, max_questions=max_questions
    )


def describe(asked: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    """Accuracy with its interval, and that of each task."""
    share = count_correct(asked)
    scores = {
        task: statistics.mean(item.correct for item in asked if item.task == task)
        for task in dict.fromkeys(item.task for item in asked)
    }
    return {
        "accuracy": share.value,
        "low": float(share.low),
        "high": float(share.high),
        "n": share.count,
        **scores,
    }


def average(
    asked: Mapping[tuple[str, int], Sequence[AnsweredQuestion]], *, seeds: Sequence[int]
) -> Iterator[tuple[str, float]]:
    """Every row's mean accuracy over seeds with its interval, as named numbers."""
    for row in dict.fromkeys(name for name, _ in asked):
        right = [[float(item.correct) for item in asked[row, seed]] for seed in seeds]
        subjects = [item.cluster for item in asked[row, seeds[0]]]
        found = bootstrap(np.array(right), subjects=subjects)
        for part, value in zip(("", "_low", "_high"), found, strict=True):
            yield f"accuracy_{row}{part}", value


def compare(
    asked: Mapping[tuple[str, int], Sequence[AnsweredQuestion]],
    *,
    seeds: Sequence[int],
    against: str,
) -> Iterator[tuple[str, float]]:
    """Every row minus one of them, over all questions and by task, as named numbers."""
    for row in dict.fromkeys(name for name, _ in asked):
        if row == against:
            continue
        for task in ("accuracy", *TASKS):
            chosen = [item for item in asked[row, seeds[0]] if task in ("accuracy", item.task)]
            ids = {item.id for item in chosen}
            differences = [
                [
                    float(ours.correct) - float(theirs.correct)
                    for ours, theirs in zip(asked[row, seed], asked[against, seed], strict=True)
                    if ours.id in ids
                ]
                for seed in seeds
            ]
            subjects = [item.cluster for item in chosen]
            found = bootstrap(np.array(differences), subjects=subjects)
            for part, value in zip(("", "_low", "_high"), found, strict=True):
                yield f"{task}_{row}_minus_{against}{part}", value


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--testbed", type=Path, default=RUNS / "medical-testbed")
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS, help="only these seeds")
    options = parser.parse_args()
    machine = environment()
    testbed, names = options.testbed, options.rows or list(list_rows(options.testbed))
    steps, max_questions = (STEPS, MAX_QUESTIONS)
    if options.quick:
        steps, max_questions, names = 8, 20, options.rows or ["alone", "soft"]
    (RUNS / "distillation").mkdir(parents=True, exist_ok=True)
    if any(row in RECORDED for row in names) and not recorded().is_dir():
        in_process("recorded", {"recorded": record(testbed)})
    rows = []
    asked: dict[tuple[str, int], list[AnsweredQuestion]] = {}
    for seed in options.seeds:
        for name in names:
            cost = make(name, seed, testbed=testbed, steps=steps)
            folder = Path(cost["folder"])
            asked[name, seed] = ask_all(folder, testbed=testbed, max_questions=max_questions)
            loss = read_artifact(folder).manifest.metrics["validation_loss"]
            rows.append(
                {
                    "row": name,
                    "seed": seed,
                    **describe(asked[name, seed]),
                    "cpu_seconds": cost.get("cpu_seconds"),
                    "peak_mb": cost["peak_mb"],
                    "validation_loss": loss,
                }
            )
            print(rows[-1], flush=True)
    ratios = {
        "teacher_accuracy": describe(
            ask_all(testbed / "teacher", testbed=testbed, max_questions=max_questions)
        )["accuracy"]
    }
    ratios |= dict(average(asked, seeds=options.seeds))
    for against in ("alone", "soft", "features", "inherit", "moe_init"):
        if against in names:
            ratios |= dict(compare(asked, seeds=options.seeds, against=against))
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("row",))


if __name__ == "__main__":
    main()
