"""The stage `prepare` on the built-in pack: its counts, its questions, and what it refuses."""

import json
import os
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from limbeck.contracts.artifacts import hash_files
from limbeck.contracts.corpus import Corpus, Domain
from limbeck.contracts.errors import DataError, LeakError
from limbeck.contracts.leaks import check_leaks
from limbeck.contracts.records import read_jsonl
from limbeck.models.tokenizers import load_tokenizer
from limbeck.serving.facts import read_store
from limbeck.stages.config.prepare import Config
from tests.support.prepared_corpora import (
    ANSWER,
    CONSULT,
    FILTERS,
    KNOWLEDGE,
    dirty,
    prepare,
    read_all,
    read_questions,
    read_records,
    write_rows,
)

TESTBED = Path(os.environ.get("LIMBECK_TESTBED", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepare")
    return prepare(path, KNOWLEDGE, dirty(CONSULT), filters=FILTERS)


def test_counts_add_up(made):
    corpus, counts = made
    card = json.loads((corpus / "card.json").read_text())
    dropped = list(read_jsonl(corpus / "dropped.jsonl"))
    assert {key: counts[key] for key in card["counts"]} == card["counts"]
    for name, source in counts["sources"].items():
        assert source.items() <= card["sources"][name].items()
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert len(dropped) == sum(counts["dropped"].values())
    assert all(drop["reason"] and drop["place"] for drop in dropped)
    for source in card["sources"].values():
        assert source["read"] == source["kept"] + sum(source["dropped"].values())
    sizes = {split: len(read_records(corpus, split)) for split in counts["splits"]}
    assert sizes == counts["splits"] and sum(sizes.values()) == counts["kept"]
    assert counts["pairs"] + counts["statements"] == counts["kept"]


def test_the_dirty_records_meet_every_filter(made):
    _, counts = made
    assert {
        "broken_json",
        "missing_field",
        "duplicate",
        "near_duplicate",
        "low_confidence",
        "low_score",
        "answer_too_short",
        "answer_too_long",
    } <= counts["dropped"].keys()


def test_free_text_keeps_the_rules(made):
    corpus, counts = made
    free = [r for s in counts["splits"] for r in read_records(corpus, s) if r.source == "consult"]
    assert free
    for record in free:
        assert 15 <= len(record.answer) <= 200 and record.confidence > 0.9
        for entity in record.entities:
            text = getattr(record, entity.part)
            assert text[entity.start : entity.start + len(entity.text)] == entity.text


TASKS = {"recall", "choice", "symptom_sets", "refusal", "triage", "free"}


def test_nothing_leaks(made):
    corpus, _ = made
    held_out = [*read_records(corpus, "validation"), *read_records(corpus, "test")]
    questions = read_questions(corpus)
    check_leaks(read_records(corpus, "train"), held_out=[*held_out, *questions])
    assert {question.task for question in questions} == TASKS


def test_the_facts_of_the_pack_go_with_it(made):
    corpus, _ = made
    store = read_store(corpus)
    assert len(store.facts) == 1224


def test_the_tokenizer_writes_every_training_text(made):
    corpus, _ = made
    tokenizer = load_tokenizer(corpus / "tokenizer")
    for record in random.Random(0).sample(read_records(corpus, "train"), 50):
        ids = tokenizer(record.answer, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == record.answer


def test_the_page_stands_alone(made):
    corpus, _ = made
    page = (corpus / "card.html").read_text(encoding="utf-8")
    for word in ("数据卡", "Data card", "28.7", "120,000", "心血管内科", "<svg"):
        assert word in page
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in page


def test_it_is_the_same_twice_and_takes_a_given_tokenizer(made, tmp_path):
    corpus, _ = made
    again, _ = prepare(
        tmp_path,
        KNOWLEDGE,
        dirty(CONSULT),
        filters=FILTERS,
        tokenizer=str(corpus / "tokenizer"),
    )
    left, right = hash_files(corpus), hash_files(again)
    assert left["dropped.jsonl"] == right["dropped.jsonl"]
    assert {k: v for k, v in left.items() if "jsonl" in k} == {
        k: v for k, v in right.items() if "jsonl" in k
    }
    assert len(load_tokenizer(again / "tokenizer")) == len(load_tokenizer(corpus / "tokenizer"))


def test_a_limit_is_counted(tmp_path):
    _, counts = prepare(tmp_path, dirty(CONSULT, max_records=50, name="few"), filters=FILTERS)
    assert counts["kept"] == 50 and counts["dropped"]["over_limit"] > 0


def test_a_consult_record_that_evaluation_asks_is_counted(made, tmp_path):
    corpus, _ = made
    asked = next(question for question in read_questions(corpus) if question.task == "recall")
    path = tmp_path / "own.jsonl"
    write_rows(path, (asked.question, ANSWER))
    source = {"kind": "jsonl", "path": path, "max_dropped_ratio": 1}
    _, counts = prepare(tmp_path / "run", KNOWLEDGE, source)
    assert counts["dropped"] == {"in_evaluation": 1}


def test_nothing_left_is_an_error_with_the_reasons(tmp_path):
    path = write_rows(tmp_path / "short.jsonl", ("头痛", "休息"))
    with pytest.raises(DataError, match="answer_too_short"):
        prepare(tmp_path / "run", dirty(path), filters=FILTERS)


def test_a_leak_that_no_filter_drops_stops_the_stage(made, tmp_path):
    corpus, _ = made
    asked = next(question for question in read_questions(corpus) if question.task == "recall")
    path = write_rows(tmp_path / "own.jsonl", (asked.question, ANSWER))
    splits = {"validation_ratio": 0, "test_ratio": 0}
    with pytest.raises(LeakError, match=r"own\.jsonl"):
        prepare(
            tmp_path / "run",
            KNOWLEDGE,
            {"kind": "jsonl", "path": path},
            filters=[],
            splits=splits,
        )


def test_a_corpus_needs_no_pack(tmp_path):
    path = write_rows(tmp_path / "own.jsonl", ("头痛怎么办", ANSWER))
    corpus, _ = prepare(tmp_path / "run", {"kind": "jsonl", "path": path}, pack="")
    assert Corpus(corpus).domain() == Domain()
    (record,) = read_all(corpus)
    assert (record.entities, record.specialty) == ((), "")
    assert "参考语料" not in (corpus / "card.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "need"),
    [
        ({"sources": [{"kind": "knowledge"}]}, "source 'knowledge': a source of facts needs"),
        ({"sources": [{"kind": "triples", "path": "x"}]}, "a source of triples needs"),
        (
            {"sources": [{"kind": "jsonl", "path": "x"}], "filters": [{"kind": "quality"}]},
            "the filter `quality`",
        ),
    ],
)
def test_what_needs_a_pack_is_refused_without_one(fields, need):
    with pytest.raises(ValidationError, match=f"{need}.*set `pack`"):
        Config.model_validate({"stage": "prepare", **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": []}, "sources"),
        ({"sources": [{"kind": "jsnl", "path": "x"}]}, "did you mean 'jsonl'"),
        ({"sources": [{"path": "x"}]}, "kind"),
        ({"sources": [{"kind": "csv", "path": "x", "colums": {}}]}, "colums"),
        ({"sources": [{"kind": "knowledge"}, {"kind": "knowledge"}]}, "two sources are called"),
        (
            {"sources": [{"kind": "knowledge"}], "filters": [{"kind": "qualty"}]},
            "did you mean 'quality'",
        ),
        (
            {"sources": [{"kind": "knowledge"}], "filters": [{"kind": "normalize_zh"}]},
            "unknown filter 'normalize_zh': set `normalization: zh` on each source",
        ),
        (
            {
                "sources": [{"kind": "knowledge"}],
                "filters": [{"kind": "quality", "min_confidence": 2}],
            },
            "min_confidence",
        ),
        (
            {
                "sources": [{"kind": "knowledge"}],
                "filters": [{"kind": "length", "min_answer_chars": 300}],
            },
            "above",
        ),
        ({"sources": [{"kind": "knowledge"}], "splits": {"test_ratio": 0.9}}, "test_ratio"),
    ],
)
def test_bad_configs_name_what_is_wrong(fields, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({"stage": "prepare", "pack": "medical", **fields})


@pytest.mark.slow
def test_the_real_test_bed(tmp_path):
    """The first lines of the real files; `benchmarks/` takes them whole."""
    medical = TESTBED / "medical"
    if not medical.is_dir():
        pytest.skip(f"no test bed at {TESTBED}; set LIMBECK_TESTBED to its folder")
    for name in ("toyhom_internal_medicine.gb18030.csv", "cmedqa_pairs.tsv"):
        lines = (medical / "consult" / name).read_bytes().split(b"\n")[:400]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
    rows = json.loads((medical / "intent" / "kuake_qic_train.json").read_text(encoding="utf-8"))
    (tmp_path / "train.json").write_text(json.dumps(rows[:300], ensure_ascii=False))
    _, counts = prepare(
        tmp_path,
        {
            "kind": "csv",
            "path": tmp_path / "toyhom_internal_medicine.gb18030.csv",
            "name": "toyhom",
            "columns": {"question": ["title"]},
            "max_dropped_ratio": 1,
        },
        {
            "kind": "csv",
            "path": tmp_path / "cmedqa_pairs.tsv",
            "name": "cmedqa",
            "where": {"label": "1"},
            "header": ["label", "question", "answer"],
            "max_answers": 3,
            "max_dropped_ratio": 1,
        },
        {
            "kind": "labelled",
            "path": tmp_path / "train.json",
            "evaluation_path": medical / "intent" / "kuake_qic_dev.json",
            "task": "intent",
            "form": "“{text}”的意图是什么？",
            "max_dropped_ratio": 1,
        },
    )
    card = json.loads((tmp_path / "corpus" / "card.json").read_text(encoding="utf-8"))
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert card["sources"]["toyhom"]["encoding"] == {
        "toyhom_internal_medicine.gb18030.csv": "gb18030"
    }
    assert counts["dropped"]["filtered"] > 100 and counts["dropped"]["too_many_answers"] > 3
    assert counts["questions"] == {"intent": 986}
