"""The splits that a folder has: which file is which, and what `limbeck new` writes of them."""

import datasets
import pytest

from limbeck.contracts.errors import DataError
from limbeck.data.readers import hub
from limbeck.data.readers.row_files import find_split_files
from limbeck.drafting.file_splits import held_out_sources, read_held_out
from limbeck.drafting.findings import read_findings
from limbeck.drafting.sources import open_source
from tests.support.drafted_files import clauses, lines


def make_folder(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(clauses(12)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train.jsonl", "dev.jsonl", "test.jsonl"), {"train", "validation", "test"}),
        (
            ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
            {"train", "test"},
        ),
        (("afqmc_train.json", "afqmc_dev.json"), {"train", "validation"}),
        (("train/0000.csv", "validation/0000.csv", "README.md"), {"train", "validation"}),
        (("train-1.jsonl", "train-2.jsonl"), set()),
        (("test.jsonl", "contest.jsonl"), set()),
    ],
)
def test_files_are_told_by_their_names(tmp_path, names, splits):
    assert find_split_files(make_folder(tmp_path / "f", *names)).keys() == splits


def test_a_split_of_several_files_is_refused(tmp_path):
    folder = make_folder(tmp_path / "f", "train-1.jsonl", "train-2.jsonl", "test.jsonl")
    with pytest.raises(DataError, match="holds 2 files of the split 'train'"):
        find_split_files(folder)


def test_the_recipe_of_a_folder_trains_on_one_split(new, tmp_path):
    make_folder(tmp_path / "f", "train.jsonl", "test.jsonl", "more.jsonl", "LICENSE.txt")
    text, code, recipe = new("other.jsonl", "", "--data", "f")
    assert code == 0, text
    assert "12 records of f-test are asked in the report" in text
    assert "named after no split: 'more.jsonl'" in text
    assert recipe["corpus"]["sources"] == [
        {"kind": "jsonl", "name": "f-test", "path": "f/test.jsonl", "corpus_split": "test"},
        {"kind": "jsonl", "name": "f", "path": "f/train.jsonl"},
    ]
    assert recipe["corpus"]["splits"] == {"validation_ratio": 0.1, "test_ratio": 0}


def test_splits_of_a_data_set_are_held_out(monkeypatch):
    rows = [{"question": "q", "answer": "a"}]
    data = datasets.Dataset.from_list(rows)
    infos = {name: datasets.SplitInfo(name, num_examples=3) for name in ("train", "dev", "x")}
    data.info.splits = datasets.SplitDict(infos)
    monkeypatch.setattr(hub, "load_dataset", lambda *names, split, revision: {"train": data}[split])
    source = {"kind": "hub", "name": "s", "dataset": "a/s"}
    findings = read_findings(open_source(source))
    assert findings.notes["other_splits"] == {"s": {"dev": 3, "x": 3}}
    (found,) = held_out_sources(source, findings, data="a/s")
    assert found == {**source, "name": "s-validation", "split": "dev", "corpus_split": "validation"}
    held_out, doubts = read_held_out([found])
    assert not held_out and "the split 'validation' is left out" in doubts[0]
