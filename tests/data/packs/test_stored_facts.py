"""The facts of the medical pack as a service states them."""

import pytest

from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.safety import check_answer, compile_rules


@pytest.fixture(scope="module")
def facts(pack):
    return make_facts(pack)


def test_every_relation_with_facts_can_be_asked_for(pack, facts):
    relations = {key for key, item in pack.description.relations.items() if item.attributes}
    assert set(pack.wording.questions) == relations
    assert len(facts.facts) == len(pack.subjects) * len(relations)
    for fact in facts.facts:
        joined = pack.description.joiner.join(pack.items(fact.subject, fact.relation))
        assert fact.texts["zh"] == joined


def test_english_is_whole_or_not_there(facts):
    found = {fact.id: fact.texts.get("en") for fact in facts.facts}
    assert found["高血压|symptoms"] == "dizziness, headache, palpitations, neck tightness"
    assert found["高血压|specialty"] == "Cardiology"
    assert found["高血压|causes"] is None


def test_a_name_is_one_subjects(pack, facts):
    names = [name for spellings in facts.names.values() for name in spellings]
    assert len(set(names)) == len(names)
    assert "hypertension" in facts.names["高血压"] and "脑梗" in facts.names["脑梗死"]
    unknown = {*pack.description.unknown.train, *pack.description.unknown.evaluation}
    assert unknown.isdisjoint(names)


def test_the_rules_for_answers_withhold_one_fact(pack, facts):
    """It holds an order to stop a drug, and stays withheld."""
    rules = compile_rules(pack.safety)
    texts = [text for fact in facts.facts for text in fact.texts.values()]
    withheld = [text for text in texts if check_answer(text, rules).is_withheld]
    assert withheld == ["阿托品、起搏器植入、停用减慢心率药"]
