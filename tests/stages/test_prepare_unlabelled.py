"""Prepare with questions that have no answer: kept apart, clean of evaluation, and counted."""

import json

import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.leaks import check_leaks, normalise, question_key
from tests.support.prepared_corpora import KNOWLEDGE, prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All labels, a tenth of them, and a tenth with a log of questions beside."""
    folder = tmp_path_factory.mktemp("few")
    whole, _ = prepare(folder / "whole", KNOWLEDGE)
    asked = [next(Corpus(whole).questions()).question, *["新问题一", "新 问题一？", "新问题二"]]
    train = next(item for item in Corpus(whole).records("train") if item.question)
    log = folder / "log.jsonl"
    rows = [*asked, train.question]
    log.write_text("".join(json.dumps({"query": text}) + "\n" for text in rows))
    few, _ = prepare(folder / "few", KNOWLEDGE, labelled_ratio=0.1)
    source = {"kind": "questions", "path": log, "columns": ["query"], "max_dropped_ratio": 1}
    logged, _ = prepare(folder / "logged", KNOWLEDGE, source)
    return {"whole": Corpus(whole), "few": Corpus(few), "logged": Corpus(logged)}


def test_a_tenth_keeps_its_labels_and_all_questions_stay(made):
    whole, few = made["whole"], made["few"]
    assert not whole.unlabelled_path.exists() and not list(whole.unlabelled())
    for split in ("validation", "test"):
        assert few.records_path(split).read_bytes() == whole.records_path(split).read_bytes()
    labelled, bare = list(few.records("train")), list(few.unlabelled())
    before = list(whole.records("train"))
    groups = {item.group for item in before}
    assert 0.05 < len({item.group for item in labelled}) / len(groups) < 0.15
    assert {item.id for item in labelled} <= {item.id for item in before}
    assert all(item.answer for item in labelled) and not any(item.answer for item in bare)
    kept = {question_key(item) for item in (*labelled, *bare) if item.question}
    assert kept == {question_key(item) for item in before if item.question}


def test_no_evaluation_asks_them_and_none_is_there_twice(made):
    for corpus in (made["few"], made["logged"]):
        bare = list(corpus.unlabelled())
        held_out = [*corpus.records("validation"), *corpus.records("test"), *corpus.questions()]
        check_leaks(bare, held_out=held_out)
        keys = [question_key(item) for item in bare]
        assert len(keys) == len({*keys}) > 0
        assert {*keys}.isdisjoint({question_key(item) for item in corpus.records("train")})


def test_a_log_of_questions_is_cleaned_and_counted(made):
    corpus = made["logged"]
    assert [normalise(item.question) for item in corpus.unlabelled()] == ["新问题一", "新问题二"]
    card = json.loads(corpus.card_path.read_text(encoding="utf-8"))
    (source,) = [item for name, item in card["sources"].items() if name == "log"]
    assert source["read"] == 5 and source["kept"] == 2
    assert card["unlabelled"]["questions"] == 2
    page = corpus.page_path.read_text(encoding="utf-8")
    assert "without a label" in page
    assert "without a label" not in made["whole"].page_path.read_text(encoding="utf-8")
    dropped = [json.loads(line) for line in corpus.dropped_path.read_text().splitlines()]
    reasons = sorted(item["reason"] for item in dropped if item["source"] == "log")
    assert reasons == ["duplicate", "duplicate", "in_evaluation"]
