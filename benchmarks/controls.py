"""What the teacher adds at each stage, over seeds, beside the same stage without it.

Each pair of rows starts from the same weights and takes the same steps: `student` and `alone` from
the teacher's embeddings, attention and norms, `healed` and `healed_labels` from one cut model,
`int8` and `int8_labels` from one healed model. The second of a pair learns from the written labels
alone. `chain_labels` is the lone student cut, healed and made INT8 without a teacher anywhere, and
stands beside `int8`. Corpora, teacher and signals are those of a finished run of the demo,
or of the test bed, where there are the two students with few labels only. A seed
changes fresh weights and the order of the records; differences are paired by question, and their
intervals redraw subjects and seeds. Left out: other teachers, and export.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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

RUNS = Path("runs")
SEEDS = (0, 1, 2)
Entries = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Bed:
    """What is compared on the artifacts of one recipe's run."""

    recipe: Path
    given: tuple[str, ...]
    """Entries that are taken as they were made."""
    corpus: str
    """The one of them whose questions are answered."""
    tasks: tuple[str, ...]
    max_questions: int
    pairs: tuple[tuple[str, str], ...]
    """A row with the teacher, and its control."""
    list_entries: Callable[[Entries], Entries]
    """What is trained, from the recipe's entries."""


def list_demo(whole: Entries) -> Entries:
    """The demo's entries from the student on, and their controls."""
    names = ("student", "alone", "pruned", "healed", "int8")
    entries = {name: dict(whole[name]) for name in names}

    def without_teacher(name: str, **changes: Any) -> dict[str, Any]:
        entry = {**entries[name], "corpus": "few", "objective": {"kind": "next_token"}, **changes}
        entry.pop("teacher")
        return entry

    healed = without_teacher("healed", stage="train", model="pruned")
    healed.pop("student")
    return entries | {
        "healed_labels": healed,
        "int8_labels": without_teacher("int8"),
        "chain_pruned": without_teacher("pruned", checkpoint="alone"),
        "chain_healed": {**healed, "model": "chain_pruned"},
        "chain_labels": without_teacher("int8", checkpoint="chain_healed"),
    }


BEDS = {
    "demo": Bed(
        recipe=Path("recipes/demo.yaml"),
        given=("few", "transfer", "teacher", "signals"),
        corpus="few",
        tasks=("recall", "triage", "free"),
        max_questions=200,
        pairs=(
            ("student", "alone"),
            ("healed", "healed_labels"),
            ("int8", "int8_labels"),
            ("int8", "chain_labels"),
        ),
        list_entries=list_demo,
    ),
    "medical-testbed": Bed(
        recipe=Path("recipes/medical-testbed.yaml"),
        given=("few", "transfer", "teacher"),
        corpus="few",
        tasks=("recall", "choice", "intent"),
        max_questions=1000,
        pairs=(("few_student", "few_alone"),),
        list_entries=lambda whole: {name: whole[name] for name in ("few_student", "few_alone")},
    ),
}


def seed_entries(entries: Entries, *, given: Mapping[str, str], seed: int) -> Entries:
    """The entries under names with a seed, which also orders their records."""
    found: Entries = {}
    for name, entry in entries.items():
        own = {
            key: given.get(value, f"{value}-{seed}" if value in entries else value)
            if isinstance(value, str)
            else value
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
    asked: Mapping[tuple[str, int], list[AnsweredQuestion]],
    *,
    seeds: Sequence[int],
    pairs: Sequence[tuple[str, str]],
) -> Iterator[tuple[str, float]]:
    """Each row with the teacher minus its control, as named numbers."""
    for row, control in pairs:
        differences = [
            [
                float(with_it.correct) - float(without.correct)
                for with_it, without in zip(asked[row, s], asked[control, s], strict=True)
            ]
            for s in seeds
        ]
        subjects = [item.cluster for item in asked[row, seeds[0]]]
        found = bootstrap(np.array(differences), subjects=subjects)
        for part, value in zip(("", "_low", "_high"), found, strict=True):
            yield f"{row}_minus_{control}{part}", value


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--bed", choices=BEDS, default="demo")
    parser.add_argument("--run", type=Path, help="its finished run (runs/BED)")
    options = parser.parse_args()
    machine, seeds = environment(), SEEDS[:1] if options.quick else SEEDS
    bed = BEDS[options.bed]
    made_in = (options.run or RUNS / options.bed).resolve()
    given = {name: str(made_in / name) for name in bed.given}
    entries = bed.list_entries({**load_recipe(bed.recipe).entries})
    rows: list[dict[str, Any]] = []
    asked: dict[tuple[str, int], list[AnsweredQuestion]] = {}
    for seed in seeds:
        seeded = seed_entries(entries, given=given, seed=seed)
        recipe = Recipe(f"controls-{options.bed}", bed.recipe, seeded, {})
        made = run(recipe, runs=RUNS, report=lambda name, text: print(name, text, flush=True))
        for name in entries:
            answers = ask(
                made[f"{name}-{seed}"],
                corpus=made_in / bed.corpus,
                tasks=bed.tasks,
                max_questions=bed.max_questions,
            )
            asked[name, seed] = answers
            rows.append({"row": name, "seed": seed, **describe(answers)})
            print(rows[-1], flush=True)
    ratios = dict(average(asked, seeds=seeds))
    ratios |= dict(compare(asked, seeds=seeds, pairs=bed.pairs))
    report(options, environment=machine, rows=rows, ratios=ratios, labels=("row",))


if __name__ == "__main__":
    main()
