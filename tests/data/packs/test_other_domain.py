"""A domain is one folder of data: a pack of contract law goes through `prepare` by its path."""

import json
import shutil
from pathlib import Path

import pytest

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Question, Record, read_jsonl, read_records
from limbeck.data.packs.load import load_pack
from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import find_fact, make_store
from limbeck.stages import prepare

FOLDER = Path(__file__).parents[2] / "support" / "packs" / "contracts_law"
WORDING = """
questions: {elements: {en: ["what are the elements of <subject>"]}}
aliases: {duress: [coercion]}
"""
TEXTS = {
    "question": "Is `x > 3` a definite term?",
    "answer": "It is, if both parties know:\n\n- what x is;\n- how to measure it.",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("law")
    (folder / "own.jsonl").write_text(json.dumps(TEXTS) + "\n", encoding="utf-8")
    config = prepare.Config.model_validate(
        {
            "stage": "prepare",
            "pack": str(FOLDER),
            "sources": [{"kind": "knowledge"}, {"kind": "jsonl", "path": folder / "own.jsonl"}],
            "splits": {"validation_ratio": 0.1, "test_ratio": 0},
            "tokenizer": {"min_count": 1, "num_merges": 0},
        }
    )
    work = Work("corpus", folder / "corpus", folder / "state")
    work.folder.mkdir()
    prepare.run(config, work=work)
    return work.folder


@pytest.fixture(scope="module")
def records(corpus):
    return [
        record
        for split in ("train", "validation")
        for record in read_records(corpus / "records" / f"{split}.jsonl")
    ]


def read_task(corpus, task):
    path = corpus / "questions" / f"{task}.jsonl"
    return [Question.from_json(value) for value in read_jsonl(path)]


def test_its_relations_make_records_and_questions(corpus, records):
    pack = load_pack(str(FOLDER))
    asked = {record.question: record.answer for record in records}
    facts = {(r.question, r.answer) for r in records if r.group.startswith("offer|elements|")}
    assert facts and all("offer" in question + answer for question, answer in facts)
    assert asked["Name the area of offer."] == "Formation of contract"
    recall = read_task(corpus, "recall")
    assert {question.group.split("|")[1] for question in recall} == {"area", "elements"}
    assert len(pack.subjects) == 10


def test_its_classification_is_a_task(corpus, records):
    questions = read_task(corpus, "area_from_elements")
    assert questions
    assert {answer for item in questions for answer in item.answers} == {
        "Formation of contract",
        "Performance of contract",
    }
    trained = {r.group for r in records if r.group.startswith("area_from_elements|")}
    assert trained and trained.isdisjoint(question.group for question in questions)


def test_its_own_people_write_questions(corpus):
    """A task is a file; what several facts answer is one list."""
    first, both, area = sorted(read_task(corpus, "plain"), key=lambda item: item.id)
    assert first.form == "list" and set(first.answers) == {
        "mirror of the terms",
        "notice to the offeror",
        "act before lapse",
    }
    assert both.form == "list"
    assert both.answers == (
        "Formation of contract",
        "wrongful threat",
        "no reasonable alternative",
        "induced assent",
    )
    assert (area.form, area.answers) == ("single", ("Performance of contract",))
    assert area.options == ("Formation of contract", "Performance of contract")
    assert all(item.is_written for item in (first, both, area))
    assert "plain" in {path.stem for path in Corpus(corpus).task_paths()}


def test_what_it_does_not_hold_is_refused(corpus, records):
    assert any(r.answer == "I do not know." and "patent exhaustion" in r.question for r in records)
    (refusal, *_) = read_task(corpus, "refusal")
    assert "eminent domain" in refusal.question and refusal.answers == ("I do not know",)


def test_free_text_keeps_its_signs_and_line_breaks(records):
    (own,) = [record for record in records if record.source == "own"]
    assert (own.question, own.answer) == (TEXTS["question"], TEXTS["answer"])


def test_entities_and_specialties_are_its_own(records):
    marked = [record for record in records if record.question.endswith("the area of duress.")]
    assert marked and all(
        (entity.text, entity.type) == ("duress", "concept")
        for record in marked
        for entity in record.entities
        if entity.part == "question"
    )
    assert {record.specialty for record in records} >= {"formation", "performance"}


def test_without_wording_it_has_no_facts_to_state(corpus):
    assert not Corpus(corpus).facts_path.exists()


def test_with_wording_its_facts_are_stated(tmp_path):
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "wording.yaml").write_text(WORDING, encoding="utf-8")
    store = make_store(make_facts(load_pack(str(tmp_path))))
    found = find_fact("What are the elements of duress?", store)
    assert found.answer == "wrongful threat; no reasonable alternative; induced assent"
    assert found.source == "contracts_law:duress|elements"
    assert find_fact("What are the elements of coercion", store).source == found.source
    assert find_fact("What are the elements of economic duress?", store) is None


def test_the_card_names_its_domain(corpus):
    domain = Corpus(corpus).domain()
    assert domain.headline_tasks == ("recall", "area_from_elements")
    assert domain.titles["tasks"]["area_from_elements"]["en"] == "area from elements"
    assert domain.disclaimer["en"] == "machine-made, not legal advice"
    assert Corpus(corpus).answer_format().joiner == "; "


def test_records_are_read_as_written(records):
    assert all(isinstance(record, Record) for record in records)
