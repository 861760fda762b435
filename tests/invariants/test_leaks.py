"""The demo's corpus: nothing that evaluation asks stands in training, in words or in substance."""

import pytest

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.leaks import (
    MIN_SIMILARITY_RATIO,
    character_pairs,
    check_leaks,
    normalise,
    question_key,
)
from limbeck.contracts.records import SPLITS, Question, read_jsonl, read_records
from limbeck.evaluation.answer_questions import read_questions
from tests.support import tiny_recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """As `recipes/demo.yaml` makes it."""
    folder = tmp_path_factory.mktemp("demo")
    recipe = tiny_recipe.ROOT / "recipes" / "demo.yaml"
    warm, log = tiny_recipe.warm(), folder / "log"
    number = warm.start("run", recipe, "--runs", folder, "--until", "corpus", output=log)
    assert warm.wait(number) == 0, log.read_text()
    return folder / "demo" / "corpus"


@pytest.fixture(scope="module")
def splits(corpus):
    return {name: list(read_records(corpus / "records" / f"{name}.jsonl")) for name in SPLITS}


@pytest.fixture(scope="module")
def questions(corpus):
    return [
        Question.from_json(value)
        for path in sorted((corpus / "questions").glob("*.jsonl"))
        for value in read_jsonl(path)
    ]


def test_there_is_something_to_compare(splits, questions):
    assert len(splits["train"]) > 5000
    assert {question.task for question in questions} >= {
        "recall",
        "choice",
        "symptom_sets",
        "refusal",
        "triage",
        "free",
    }
    assert len(questions) > 800
    assert all(splits.values())


def test_no_question_of_evaluation_is_trained_on(splits, questions):
    trained = {question_key(record) for record in splits["train"] if record.question}
    trained |= {normalise(record.question) for record in splits["train"]}
    asked = {normalise(question.question) for question in questions}
    assert "" not in asked
    assert not trained & asked


def test_no_question_stands_in_two_splits(splits):
    seen = {}
    for name, records in splits.items():
        for record in records:
            key = question_key(record)
            if key:
                assert seen.setdefault(key, name) == name, record
            assert seen.setdefault(f"group {record.group}", name) == name, record


def test_forms_of_evaluation_are_never_trained_on(splits, pack):
    """Not about any subject: the phrasing itself is new."""
    subjects = [
        *pack.subjects,
        *pack.description.unknown.train,
        *pack.description.unknown.evaluation,
    ]
    held_out = {
        normalise(form.format(subject=subject))
        for relation, forms in pack.forms.items()
        if relation != "triage"
        for form in forms.evaluation
        for subject in subjects
    }
    trained = {normalise(record.question) for name in SPLITS for record in splits[name]}
    assert len(held_out) > 3 * len(subjects)
    assert not trained & held_out


def test_forms_of_triage_are_never_trained_on(splits, pack):
    forms = [form.partition("{items}") for form in pack.forms["triage"].evaluation]
    for name in SPLITS:
        for record in splits[name]:
            if record.group.startswith("triage|"):
                assert not any(
                    record.question.startswith(before) and record.question.endswith(after)
                    for before, _, after in forms
                ), record


def test_at_least_three_forms_of_each_relation_are_held_out(pack):
    for relation, forms in pack.forms.items():
        assert len(forms.evaluation) >= 3, relation
        assert len(forms.train) + len(forms.evaluation) >= 8, relation
        assert not {normalise(form) for form in forms.train} & set(map(normalise, forms.evaluation))


def test_no_symptom_set_of_triage_is_trained_on(splits, questions, pack):
    """Whatever the order and the phrasing: found in the text, not only by the group's name."""
    symptoms = sorted(
        {item for disease in pack.subjects.values() for item in disease.attributes["symptoms"]},
        key=len,
        reverse=True,
    )

    def find(text):
        found = set()
        for symptom in symptoms:
            if symptom in text:
                found.add(symptom)
                text = text.replace(symptom, "|")
        return frozenset(found)

    asked = {find(item.question) for item in questions if item.task == "symptom_sets"}
    assert len(asked) >= 100
    assert all(len(item) >= 2 for item in asked)
    trained = {
        find(record.question) for record in splits["train"] if record.group.startswith("triage|")
    }
    assert len(trained) > 500
    assert not trained & asked


def test_what_is_refused_in_evaluation_is_unknown_to_training(splits, questions, pack):
    names = pack.description.unknown.evaluation
    asked = [item.question for item in questions if item.task == "refusal"]
    assert all(any(name in text for name in names) for text in asked)
    made = [record for record in splits["train"] if record.source == "knowledge"]
    assert not [record for record in made if any(name in record.question for name in names)]


def test_evaluation_checks_for_itself(corpus, splits, questions):
    found = read_questions(Corpus(corpus), max_questions=10**6)
    assert len(found.questions) == len(questions)
    path = corpus / "records" / "train.jsonl"
    num_compared = check_leaks(read_records(path), held_out=found.questions, path=path)
    assert num_compared == len(splits["train"])


def test_no_training_record_is_like_a_question_that_a_person_wrote(splits, questions):
    """Every pair, by the similarity itself and not by the index that the stages use."""
    written = [character_pairs(item.question) for item in questions if item.is_written]
    assert len(written) > 600
    for name in SPLITS:
        for record in splits[name]:
            if not record.question:
                continue
            pairs = character_pairs(record.question)
            for other in written:
                shared = len(pairs & other)
                assert shared < MIN_SIMILARITY_RATIO * (len(pairs) + len(other) - shared), record
