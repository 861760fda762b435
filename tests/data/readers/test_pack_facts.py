import pytest

from limbeck.contracts.leaks import check_leaks, normalise
from limbeck.contracts.records import Question, Record
from limbeck.data.readers.pack_facts import ClassificationConfig, Config, classification_cases

CONFIG = Config(classification=ClassificationConfig(forms_per_set=2))


@pytest.fixture(scope="module")
def items(pack):
    return list(CONFIG.read(pack=pack, seed=0))


@pytest.fixture(scope="module")
def records(items):
    return [item for item in items if isinstance(item, Record)]


@pytest.fixture(scope="module")
def questions(items):
    return [item for item in items if isinstance(item, Question)]


def test_it_is_the_same_every_time_and_another_seed_draws_otherwise(pack, items):
    assert list(CONFIG.read(pack=pack, seed=0)) == items
    assert list(CONFIG.read(pack=pack, seed=1)) != items


def test_ids_are_unique(records, questions):
    assert len({record.id for record in records}) == len(records)
    assert len({question.id for question in questions}) == len(questions)


def test_evaluation_forms_never_train(pack, records):
    asked = {record.question for record in records}
    for key, forms in pack.forms.items():
        if key == "triage" or not pack.description.relations[key].attributes:
            continue
        for form in forms.evaluation:
            assert asked.isdisjoint(form.format(subject=name) for name in pack.subjects)


def test_training_and_questions_share_nothing(records, questions):
    check_leaks(records, held_out=questions)


def test_wrong_options_are_of_the_same_specialty_where_there_are_enough(pack, questions):
    homes: dict[str, set[str]] = {}
    for disease, specialty in pack.specialty_of.items():
        for relation in pack.description.relations:
            homes.setdefault("、".join(pack.items(disease, relation)), set()).add(specialty)
    asked = [
        question
        for question in questions
        if question.task == "choice" and "|specialty|" not in question.group
    ]
    near = sum(
        all(question.specialty in homes[option] for option in question.options)
        for question in asked
    )
    assert near > 0.9 * len(asked) > 0


def test_symptom_sets_asked_are_never_trained_on(records, questions):
    trained = {record.group for record in records if record.group.startswith("triage|")}
    asked = {question.group for question in questions if question.task == "symptom_sets"}
    assert trained and asked and trained.isdisjoint(asked)


def test_symptom_sets_point_to_one_specialty(pack):
    home = {}
    for case in classification_cases("triage", pack=pack, held_out=2, seed=0):
        for symptoms in (*case.train, *case.evaluation):
            assert home.setdefault(symptoms, case.specialty) == case.specialty
            assert set(symptoms) <= set(pack.subjects[case.subject].attributes["symptoms"])
            owners = {
                pack.specialty_of[name]
                for name, disease in pack.subjects.items()
                if set(symptoms) <= set(disease.attributes["symptoms"])
            }
            assert owners == {case.specialty}


def test_answers_are_the_facts(pack, records, questions):
    for record in records:
        name, relation, *_ = record.group.split("|")
        if name in pack.subjects:
            answer = pack.description.joiner.join(pack.items(name, relation))
            assert record.answer == answer if record.question else answer in record.answer
    for question in questions:
        if question.task == "recall":
            name, relation, _ = question.group.split("|")
            assert question.answers == pack.items(name, relation)
            assert question.form == pack.description.relations[relation].answer


def test_wrong_options_are_wrong(pack, questions):
    choices = [question for question in questions if question.task == "choice"]
    assert choices
    for question in choices:
        name, relation, _ = question.group.split("|")
        right = set(pack.items(name, relation))
        assert len(set(question.options)) == 4 and question.answers[0] in question.options
        for option in set(question.options) - set(question.answers):
            assert right.isdisjoint(option.split(pack.description.joiner))


def test_questions_are_spread_evenly(pack, questions):
    for task in ("recall", "symptom_sets", "triage", "free"):
        counts = dict.fromkeys(pack.description.specialties, 0)
        for question in questions:
            counts[question.specialty] = counts.get(question.specialty, 0) + (question.task == task)
        shares = [counts[key] for key in pack.description.specialties]
        assert max(shares) - min(shares) <= 6 and min(shares) > 0


def test_what_is_unknown_is_refused(pack, records, questions):
    unknown = pack.description.unknown
    refused = [record for record in records if record.answer == pack.description.unknown_answer]
    assert {name for name in unknown.train if any(name in r.question for r in refused)} == set(
        unknown.train
    )
    asked = [question for question in questions if question.task == "refusal"]
    assert asked and all(question.answers == ("不知道",) for question in asked)
    trained = " ".join(normalise(record.question) for record in records)
    for name in unknown.evaluation:
        assert not any(name in record.question for record in refused)
        assert any(name in question.question for question in asked) or name not in trained


def test_a_share_of_the_training_questions_is_typed_without_a_mark(pack):
    marked, typed = (
        [
            item
            for item in Config(unmarked_ratio=ratio).read(pack=pack, seed=0)
            if isinstance(item, Record | Question)
        ]
        for ratio in (0.0, 0.5)
    )
    assert [item for item in marked if isinstance(item, Question)] == [
        item for item in typed if isinstance(item, Question)
    ]
    pairs = [
        (before, after)
        for before, after in zip(marked, typed, strict=True)
        if isinstance(before, Record) and before.question
    ]
    unmarked = [after for before, after in pairs if after.question != before.question]
    assert 0.4 < len(unmarked) / len(pairs) < 0.6
    assert not any(item.question.endswith(("？", "?", "。")) for item in unmarked)
    assert all(before.question.startswith(after.question) for before, after in pairs)
