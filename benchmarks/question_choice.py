"""Which questions to ask a teacher, at equal numbers of them: by chance, spread, or least sure.

A tenth of the labelled queries (KUAKE-QIC) keeps its labels. Of the others so many are chosen in
each way and get their true labels, as if from a perfect teacher. A linear classifier of character
n-grams learns from both, and is scored on the queries of the development file. `least sure alone`
is `uncertain` without regard to diversity.

    LIMBECK_TESTBED=FOLDER python benchmarks/question_choice.py \\
        --json benchmarks/results/question_choice.json
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from reporting import environment, make_parser, report
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from limbeck.contracts.config import resolve
from limbeck.contracts.records import Record
from limbeck.contracts.registry import QUESTION_CHOICES
from limbeck.data.corpus.splits import draw_ratio
from limbeck.distillation.question_choice.config import QuestionChoice
from limbeck.distillation.question_choice.selection import linear_margins
from limbeck.evaluation.floors.text_pool import NGRAMS
from limbeck.evaluation.metrics import accuracy_difference

SEEDS = (0, 1, 2)
COUNTS = (200, 600, 1200, 2400)
LABELLED_RATIO = 0.1
CHOICES = {
    "random": {"kind": "random"},
    "diverse": {"kind": "diverse"},
    "uncertain": {"kind": "uncertain"},
    "least sure alone": {"kind": "uncertain", "candidates_per_question": 1},
}


def main() -> None:
    """Measure every choice, print the table and write the figures."""
    parser = make_parser(__doc__ or "")
    default = os.environ.get("LIMBECK_TESTBED", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="the test bed's folder")
    options = parser.parse_args()
    machine = environment()
    folder = options.data / "medical" / "intent"
    training, held_out = (read(folder / f"kuake_qic_{name}.json") for name in ("train", "dev"))
    seeds, counts = (SEEDS[:1], COUNTS[:2]) if options.quick else (SEEDS, COUNTS)
    rows, correct = [], {}
    for seed in seeds:
        labelled = [item for item in training if is_labelled(item, seed=seed)]
        asked = [item for item in training if not is_labelled(item, seed=seed)]
        margins = linear_margins(asked, labelled=labelled)
        for name, learnt in {"the tenth alone": labelled, "all labels": training}.items():
            found = learn(learnt, held_out)
            rows.append(describe(name, 0, seed=seed, num_records=len(learnt), found=found))
        for count in counts:
            for name, settings in CHOICES.items():
                choice: QuestionChoice = resolve(
                    QUESTION_CHOICES, settings["kind"], what="choice"
                ).model_validate({**settings, "max_questions": count, "seed": seed})
                places = choice.choose(asked, measure_margins=lambda found=margins: found)
                learnt = [*labelled, *(asked[place] for place in places)]
                found = learn(learnt, held_out)
                correct.setdefault((name, count), []).append(found)
                rows.append(describe(name, count, seed=seed, num_records=len(learnt), found=found))
    differences = [
        compare(name, count, correct=correct, held_out=held_out, num_seeds=len(seeds))
        for count in counts
        for name in CHOICES
        if name != "random"
    ]
    report(
        options,
        environment=machine,
        rows=rows,
        ratios={},
        labels=("choice", "asked"),
        tables={"minus_random": differences},
    )


def read(path: Path) -> list[Record]:
    """Queries with their labels."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Record(row["id"], row["query"], row["label"], row["query"], path.stem) for row in rows]


def is_labelled(record: Record, *, seed: int) -> bool:
    """Whether the record keeps its label, drawn as `prepare` draws it."""
    return draw_ratio(f"labels:{seed}:{record.group}") < LABELLED_RATIO


def learn(records: Sequence[Record], held_out: Sequence[Record]) -> Bool[np.ndarray, " questions"]:
    """Which held-out queries a linear classifier of the records answers right."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=NGRAMS, sublinear_tf=True)
    vectors = vectorizer.fit_transform(item.question for item in records)
    model = LinearSVC(random_state=0).fit(vectors, [item.answer for item in records])
    predicted = model.predict(vectorizer.transform(item.question for item in held_out))
    return np.array([item.answer for item in held_out]) == predicted


def describe(
    choice: str, asked: int, *, seed: int, num_records: int, found: Bool[np.ndarray, " questions"]
) -> dict[str, object]:
    """A row of the table."""
    return {
        "choice": choice,
        "asked": asked,
        "seed": seed,
        "records": num_records,
        "accuracy": float(found.mean()),
    }


def compare(
    name: str,
    count: int,
    *,
    correct: dict[tuple[str, int], list[Bool[np.ndarray, " questions"]]],
    held_out: Sequence[Record],
    num_seeds: int,
) -> dict[str, object]:
    """A choice minus the random one over all seeds; the interval redraws queries."""
    found = accuracy_difference(
        correct=np.concatenate(correct[name, count]),
        reference=np.concatenate(correct["random", count]),
        groups=[item.id for item in held_out] * num_seeds,
    )
    each = zip(correct[name, count], correct["random", count], strict=True)
    wins = sum(bool(ours.mean() > theirs.mean()) for ours, theirs in each)
    return {
        "choice": name,
        "asked": count,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "better_seeds": wins,
        "seeds": num_seeds,
    }


if __name__ == "__main__":
    main()
