"""What each phase of `recipes/progressive.yaml` is worth, over seeds, on one token budget.

Pre-training, seven eighths of the budget, runs once; each seed fine-tunes from it in another order
of the records and samples other answers. Beside the recipe's own phases stands `continued`: the
reinforcement's tokens spent on the written answers to the same questions. Differences are paired
by question; intervals are of a bootstrap that redraws subjects and seeds. Left out: other budgets
and model sizes.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ablating import ask
from reporting import environment, parse_options, report

from limbeck.contracts.recipe import load_recipe
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.metrics import exact_match
from limbeck.pipeline.run import run

RECIPE = Path("recipes/progressive.yaml")
RUNS = Path("runs")
SEEDS = (0, 1, 2)
TASKS = ("recall", "symptom_sets", "refusal")
UNKNOWN = ("不知道",)
TRIES: dict[str, dict[str, Any]] = {
    "reinforced_lr_5e-4": {"training": {"learning_rate": 0.0005}},
    "reinforced_group_4": {
        "objective": {"num_generations": 4, "beta": 0.04},
        "training": {"learning_rate": 0.0005},
    },
}
"""Settings of reinforcement besides the recipe's."""
NUM_SAMPLES = 2000


def list_entries(seed: int, *, quick: bool) -> dict[str, dict[str, Any]]:
    """The recipe's training entries for one seed, its control, and the tries."""
    whole = load_recipe(RECIPE).entries
    control = {
        **whole["reinforced"],
        "objective": {"kind": "next_token"},
        "batching": whole["tuned"]["batching"],
        "training": whole["preferred"]["training"],
    }
    phases = {name: entry for name, entry in whole.items() if entry["stage"] == "train"}
    phases["continued"] = control
    for name, changes in TRIES.items():
        entry = dict(whole["reinforced"])
        phases[name] = entry | {key: entry[key] | value for key, value in changes.items()}
    found = {}
    for name, entry in phases.items():
        if name == "base":
            continue
        start = entry["model"]
        steps = entry["training"]["max_steps"] | ({"tokens": 40000} if quick else {})
        found[f"{name}-{seed}"] = entry | {
            "model": start if start == "base" else f"{start}-{seed}",
            "batching": entry["batching"] | {"seed": 10 * seed + entry["batching"].get("seed", 0)},
            "training": entry["training"] | {"max_steps": steps, "seed": seed},
        }
    return found


def score(asked: Sequence[AnsweredQuestion]) -> dict[str, np.ndarray]:
    """One number a question: right or not by task, and whether a refusal is calibrated.

    `false_refusal` is over questions that the pack answers; `calibration` is the mean of refusing
    what is unknown and of answering what is known.
    """
    refused = np.array([exact_match(item.answer, expected=UNKNOWN) for item in asked], float)
    known = np.array([item.task != "refusal" for item in asked])
    right = np.array([item.correct for item in asked], float)
    nothing = np.full(len(asked), np.nan)
    found = {
        task: np.where([item.task == task for item in asked], right, nothing) for task in TASKS
    }
    found["false_refusal"] = np.where(known, refused, nothing)
    halves = np.where(known, 0.5 / known.mean(), 0.5 / (~known).mean())
    found["calibration"] = halves * np.where(known, 1 - refused, refused)
    return found


def find_subjects(asked: Sequence[AnsweredQuestion]) -> list[str]:
    """What is redrawn together: all questions about one disease, name or symptom set."""
    return [
        item.group if item.group.startswith("triage|") else item.group.split("|")[0]
        for item in asked
    ]


def bootstrap(
    differences: np.ndarray, *, subjects: Sequence[str], seed: int = 0
) -> tuple[float, float, float]:
    """Mean of seeds x questions with a 95 % interval that redraws subjects and seeds."""
    valid = ~np.isnan(differences[0])
    values = differences[:, valid]
    _, inverse = np.unique(np.asarray(subjects)[valid], return_inverse=True)
    num_subjects = int(inverse.max()) + 1
    sums = np.stack([np.bincount(inverse, row, num_subjects) for row in values])
    counts = np.bincount(inverse, minlength=num_subjects)
    rng, means = np.random.default_rng(seed), []
    for _ in range(NUM_SAMPLES):
        drawn = rng.integers(0, num_subjects, num_subjects)
        rows = rng.integers(0, len(values), len(values))
        means.append(sums[rows][:, drawn].sum() / (len(rows) * counts[drawn].sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def compare(
    asked: Mapping[tuple[str, int], Sequence[AnsweredQuestion]],
    *,
    seeds: Sequence[int],
    against: str,
) -> Iterator[tuple[str, float]]:
    """Every other phase minus one of them, as named numbers."""
    scores = {key: score(items) for key, items in asked.items()}
    subjects = find_subjects(next(iter(asked.values())))
    for phase in dict.fromkeys(name for name, _ in asked):
        if phase == against:
            continue
        for column in scores[phase, seeds[0]]:
            rows = [scores[phase, s][column] - scores[against, s][column] for s in seeds]
            found = bootstrap(np.stack(rows), subjects=subjects)
            for part, value in zip(("", "_low", "_high"), found, strict=True):
                yield f"{column}_{phase}_minus_{against}{part}", value


def main() -> None:
    options = parse_options(__doc__ or "")
    machine = environment()
    whole = load_recipe(RECIPE)
    entries = {name: whole.entries[name] for name in ("corpus", "practice", "base")}
    if options.quick:
        entries["base"] = entries["base"] | {"training": {"max_steps": 5}}
    asked: dict[tuple[str, int], list[AnsweredQuestion]] = {}
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    for seed in SEEDS:
        entries |= list_entries(seed, quick=options.quick)
        name = "progressive-quick" if options.quick else "progressive-seeds"
        recipe = dataclasses.replace(whole, name=name, entries=entries)
        made = run(recipe, runs=RUNS, report=lambda entry, text: print(entry, text, flush=True))
        for entry in ("base", *list_entries(seed, quick=options.quick)):
            phase = entry.rpartition("-")[0] or entry
            asked[phase, seed] = ask(made[entry], corpus=made["corpus"].path, tasks=TASKS)
            manifest = made[entry].manifest
            scores = score(asked[phase, seed])
            rows.append(
                {
                    "phase": phase,
                    "seed": seed,
                    "steps": manifest.metrics["steps"],
                    "tokens_planned": manifest.metrics.get("tokens_planned", 0.0),
                    "tokens_seen": manifest.metrics["tokens_seen"],
                    "budget_seen_ratio": manifest.metrics.get("budget_seen_ratio", 0.0),
                    "seconds": manifest.seconds,
                    **{key: float(np.nanmean(value)) for key, value in scores.items()},
                }
            )
            print(rows[-1], flush=True)
        seeds = SEEDS[: SEEDS.index(seed) + 1]
        # Fine-tuning itself changes refusals, so a phase is held against its start and before.
        ratios = dict(compare(asked, seeds=seeds, against="tuned"))
        ratios |= dict(compare(asked, seeds=seeds, against="base"))
        print({name: round(value, 4) for name, value in ratios.items()}, flush=True)
    tasks = [item.task for item in asked["tuned", SEEDS[0]]]
    counts = {f"questions_{task}": float(tasks.count(task)) for task in TASKS}
    seconds = statistics.median(
        sum(row["seconds"] for row in rows if row["seed"] == seed) for seed in SEEDS
    )
    report(
        options,
        environment=machine,
        rows=rows,
        labels=("phase",),
        ratios=ratios | counts | {"seconds_of_one_seed": seconds},
    )


if __name__ == "__main__":
    main()
