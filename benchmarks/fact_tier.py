"""Tier zero: how many questions the stored facts of a corpus answer, how many rightly, how fast.

The corpus's own evaluation questions are scored by their tasks; questions of other domains and
people's real questions (the test bed's, where it is there) have no right answer to compare with:
`--show` prints each one that is answered, to be read. The safety rules come first, as in service.
The processor time of a call is measured, alone, in this process.

With `--answers` (a report of models on the same corpus) each of its models and floors is scored
alone and behind the facts, on the questions of the accuracy that it was asked; and on those of
them that a fact answers.

    python benchmarks/fact_tier.py --corpus runs/demo/corpus --answers runs/demo/report \\
        --show --json benchmarks/results/fact_tier.json
"""

import csv
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reporting import environment, make_parser, report

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Question
from limbeck.evaluation.foreign import read_foreign
from limbeck.evaluation.metrics import clustered_interval
from limbeck.evaluation.tasks import Response, score_response
from limbeck.serving.facts import FactStore, find_fact, read_store
from limbeck.serving.safety import (
    CompiledRules,
    check_answer,
    compile_rules,
    find_red_flags,
    refuse_request,
)

SIMILAR = {"chip_sts": ("text1", "text2"), "kuake_qqr": ("query1", "query2")}


def main() -> None:
    """Ask everything once, print the tables and write the figures."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--corpus", type=Path, default=Path("runs/demo/corpus"))
    default = os.environ.get("LIMBECK_TESTBED", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="the test bed's folder")
    parser.add_argument("--answers", type=Path, help="a report's folder, for what models answer")
    parser.add_argument("--show", action="store_true", help="print every question answered")
    options = parser.parse_args()
    machine = environment()
    corpus = Corpus(options.corpus)
    store, domain = read_store(options.corpus), corpus.domain()
    rules = compile_rules(domain.safety)
    sets: dict[str, list[Question]] = {}
    for question in corpus.questions():
        sets.setdefault(question.task, []).append(question)
    sets["all of the accuracy"] = [q for task in domain.headline_tasks for q in sets.get(task, [])]
    for purpose in ("calibration", "measurement"):
        sets[f"foreign, {purpose}"] = list(read_foreign(purpose))
    scored = [*sets]
    for name, texts in read_real(options.data):
        distinct = sorted(set(texts))[:: 20 if options.quick else 1]
        sets[name] = [Question(text, name, text, ("?",), "single") for text in distinct]
    rows, times = [], []
    for name, questions in sets.items():
        is_scored = name in scored and not name.startswith("foreign")
        found = ask(questions, store, rules=rules)
        rows.append({"questions": name, **describe(questions, found, is_scored=is_scored)})
        seconds = [item.seconds for item in found]
        times.append(
            {
                "questions": name,
                "median_cpu_us": statistics.median(seconds) * 1e6,
                "p99_cpu_us": float(np.quantile(seconds, 0.99)) * 1e6,
                "longest_cpu_us": max(seconds) * 1e6,
            }
        )
        if options.show:
            for question, item in zip(questions, found, strict=True):
                if item.source:
                    print(f"{name}\t{question.question}\t{item.source}\t{item.answer}")
    pooled = sets["all of the accuracy"]
    right = {
        question.id: score_response(question, Response(item.answer, 1.0)).correct
        for question, item in zip(pooled, ask(pooled, store, rules=rules), strict=True)
        if item.source
    }
    groups = {question.id: question.group for question in pooled}
    beside = list(compare(options.answers, right=right, groups=groups)) if options.answers else []
    report(
        options,
        environment=machine,
        rows=rows,
        ratios={"num_facts": len(store.facts), "num_names": len(store.names)},
        labels=("questions",),
        tables={"time_of_a_call": times, "behind_the_facts": beside},
    )


class Asked:
    """What became of one question; without a source, no fact is shown."""

    def __init__(self, text: str, store: FactStore, *, rules: CompiledRules) -> None:
        start = time.thread_time()  # on a busy machine a clock would time the neighbours
        fact = find_fact(text, store)
        self.seconds = time.thread_time() - start
        self.is_ruled = bool(find_red_flags(text, rules) or refuse_request(text, rules))
        self.answer = self.source = ""
        self.is_withheld = False
        if fact is not None and not self.is_ruled:
            self.is_withheld = check_answer(fact.answer, rules).is_withheld
            self.answer, self.source = fact.answer, "" if self.is_withheld else fact.source


def ask(questions: Sequence[Question], store: FactStore, *, rules: CompiledRules) -> list[Asked]:
    """What became of each question; one call before warms nothing but the code."""
    find_fact(questions[0].question, store)
    return [Asked(item.question, store, rules=rules) for item in questions]


def describe(
    questions: Sequence[Question], found: Sequence[Asked], *, is_scored: bool
) -> dict[str, Any]:
    """A row: how many are answered, and of those that are scored how many rightly."""
    answered = [(q, item) for q, item in zip(questions, found, strict=True) if item.source]
    row: dict[str, Any] = {
        "count": len(questions),
        "by_rules": sum(item.is_ruled for item in found),
        "answered": len(answered),
        "share": len(answered) / len(questions),
        "withheld": sum(item.is_withheld for item in found),
    }
    correct = [score_response(q, Response(item.answer, 1.0)).correct for q, item in answered]
    names = ("right", "accuracy", "low", "high")
    if not is_scored or not answered:
        return row | dict.fromkeys(names)
    groups = [question.group for question, _ in answered]
    share = clustered_interval(correct=np.array(correct), groups=groups)
    values = (sum(correct), share.value, share.low, share.high)
    return row | dict(zip(names, values, strict=True))


def compare(
    folder: Path, *, right: Mapping[str, bool], groups: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """A row for each model and floor of a report; `right`: whether a fact is, where one answers."""
    for path in sorted([*folder.glob("answers/*.jsonl"), *folder.glob("floors/*.jsonl")]):
        lines = path.read_text(encoding="utf-8").splitlines()
        found = {row["id"]: bool(row["correct"]) for row in map(json.loads, lines)}
        found = {id_: correct for id_, correct in found.items() if id_ in groups}
        both = {id_: right.get(id_, correct) for id_, correct in found.items()}
        same = {id_: correct for id_, correct in found.items() if id_ in right}
        row: dict[str, Any] = {"questions": path.stem, "count": len(found), "facts": len(same)}
        for name, marks in (("alone", found), ("behind_facts", both), ("on_theirs", same)):
            share = clustered_interval(
                correct=np.array([*marks.values()], dtype=bool), groups=[groups[i] for i in marks]
            )
            row |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        yield row


def read_real(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """People's questions by source; nothing where the test bed is not there."""
    if not folder.is_dir():
        return
    lines = (folder / "english" / "medquad.jsonl").read_text(encoding="utf-8").splitlines()
    yield "English questions (MedQuAD)", [json.loads(line)["question"] for line in lines]
    folder = folder / "medical"
    with (folder / "consult" / "toyhom_internal_medicine.gb18030.csv").open(
        encoding="gb18030", errors="replace", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    yield "consult titles (Toyhom)", [row["title"] for row in rows]
    yield "consult questions (Toyhom)", [row["ask"] for row in rows]
    lines = (folder / "consult" / "cmedqa_pairs.tsv").read_text(encoding="utf-8").splitlines()
    yield "consult questions (cMedQA)", [line.split("\t")[1] for line in lines]
    lines = (folder / "consult" / "huatuo.jsonl").read_text(encoding="utf-8").splitlines()
    yield "instructions (Huatuo)", [json.loads(line)["instruction"] for line in lines]
    queries = [row["query"] for row in _read_json(folder / "intent", "kuake_qic_*.json")]
    yield "search queries (KUAKE-QIC)", queries
    for name, fields in SIMILAR.items():
        pairs = _read_json(folder / "similarity", f"{name}_*.json")
        yield f"paraphrases ({name})", [row[field] for row in pairs for field in fields]


def _read_json(folder: Path, pattern: str) -> list[dict[str, str]]:
    paths = sorted(folder.glob(pattern))
    return [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    main()
