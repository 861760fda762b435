"""What the teacher adds at each stage of the demo, over seeds, beside the same stage without it.

Each pair of rows starts from the same weights and takes the same steps: `student` and `alone` from
the teacher's embeddings, attention and norms, `healed` and `healed_labels` from one cut model,
`int8` and `int8_labels` from one healed model. The second of a pair learns from the written labels
alone. `chain_labels` is the lone student cut, healed and made INT8 without a teacher anywhere, and
stands beside `int8`. Corpora, teacher and signals are those of a finished run of
`recipes/demo.yaml`. A seed changes fresh weights and the order of the records; differences are
paired by question, and their intervals redraw subjects and seeds. Left out: other teachers, export.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ablating import ask
from distillation import average, describe
from progressive import bootstrap
from reporting import environment, make_parser, report

from limbeck.contracts.recipe import Recipe, load_recipe
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.pipeline.run import run

RECIPE = Path("recipes/demo.yaml")
RUNS = Path("runs")
SEEDS = (0, 1, 2)
MAX_QUESTIONS = 200
GIVEN = ("few", "transfer", "teacher", "signals")
PAIRS = {
    "student": "alone",
    "healed": "healed_labels",
    "int8": "int8_labels",
    "whole chain": "chain_labels",
}
"""A row with the teacher, and its control; `whole chain` is `int8` again."""


def list_entries(demo: Path) -> dict[str, dict[str, Any]]:
    """The demo's entries from the student on, and their controls, without seeds."""
    whole = load_recipe(RECIPE).entries
    names = ("student", "alone", "pruned", "healed", "int8")
    entries = {name: dict(whole[name]) for name in names}

    def without_teacher(name: str, **changes: Any) -> dict[str, Any]:
        entry = {**entries[name], "corpus": "few", "objective": {"kind": "next_token"}, **changes}
        entry.pop("teacher")
        return entry

    healed = without_teacher("healed", stage="train", model="pruned")
    healed.pop("student")
    entries |= {
        "healed_labels": healed,
        "int8_labels": without_teacher("int8"),
        "chain_pruned": without_teacher("pruned", checkpoint="alone"),
        "chain_healed": {**healed, "model": "chain_pruned"},
        "chain_labels": without_teacher("int8", checkpoint="chain_healed"),
    }
    given = {name: str(demo / name) for name in GIVEN}
    return {name: _point(entry, given) for name, entry in entries.items()}


def _point(entry: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: given.get(value, value) if isinstance(value, str) else value
        for key, value in entry.items()
    }


def seed_entries(
    entries: Mapping[str, Mapping[str, Any]], *, seed: int
) -> dict[str, dict[str, Any]]:
    """The entries under names with a seed, which also orders their records."""
    found = {}
    for name, entry in entries.items():
        own = {
            key: f"{value}-{seed}" if isinstance(value, str) and value in entries else value
            for key, value in entry.items()
        }
        order = 10 * seed + entry["batching"]["seed"]
        own["batching"] = {**entry["batching"], "seed": order}
        own["training"] = {**entry["training"], "seed": seed}
        if entry["stage"] in ("train", "distill"):
            own["seed"] = seed
        found[f"{name}-{seed}"] = own
    return found


def compare(
    asked: Mapping[tuple[str, int], list[AnsweredQuestion]], *, seeds: tuple[int, ...]
) -> Iterator[tuple[str, float]]:
    """Each row with the teacher minus its control, as named numbers."""
    for row, control in PAIRS.items():
        ours = "int8" if row == "whole chain" else row
        differences = [
            [
                float(with_it.correct) - float(without.correct)
                for with_it, without in zip(asked[ours, s], asked[control, s], strict=True)
            ]
            for s in seeds
        ]
        subjects = [item.cluster for item in asked[ours, seeds[0]]]
        found = bootstrap(np.array(differences), subjects=subjects)
        for part, value in zip(("", "_low", "_high"), found, strict=True):
            yield f"{ours}_minus_{control}{part}", value


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--demo", type=Path, default=RUNS / "demo", help="a finished run")
    options = parser.parse_args()
    machine, seeds = environment(), SEEDS[:1] if options.quick else SEEDS
    entries = list_entries(options.demo.resolve())
    rows: list[dict[str, Any]] = []
    asked: dict[tuple[str, int], list[AnsweredQuestion]] = {}
    for seed in seeds:
        recipe = Recipe("controls", RECIPE, seed_entries(entries, seed=seed), {})
        made = run(recipe, runs=RUNS, report=lambda name, text: print(name, text, flush=True))
        for name in entries:
            answers = ask(
                made[f"{name}-{seed}"],
                corpus=options.demo.resolve() / "few",
                tasks=("recall", "triage", "free"),
                max_questions=MAX_QUESTIONS,
            )
            asked[name, seed] = answers
            rows.append({"row": name, "seed": seed, **describe(answers)})
            print(rows[-1], flush=True)
    ratios = dict(average(asked, seeds=seeds)) | dict(compare(asked, seeds=seeds))
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("row",))


if __name__ == "__main__":
    main()
