"""The schema of stored facts and of the wording of questions for them."""

import re

import pytest
from pydantic import ValidationError

from limbeck.contracts.facts import SUBJECT, FactsFile, Wording

WORDING = {
    "macros": {"which": "哪些|什么"},
    "frames": {"zh": "(?:请问)?<question>呢?"},
    "questions": {"symptoms": {"zh": ["<subject>有<which>症状", "<subject>症状"]}},
    "aliases": {"高血压": ["高血压病"]},
}
FACTS = {
    "pack": "medical",
    "title": {"zh": "医学"},
    "names": {"高血压": ["高血压", "高血压病"]},
    "facts": [{"subject": "高血压", "relation": "symptoms", "texts": {"zh": "头晕、头痛"}}],
    "wording": WORDING,
}


def test_a_relation_has_one_expression_in_its_frame():
    ((place, expression),) = Wording.model_validate(WORDING).expressions().items()
    assert place == ("symptoms", "zh")
    for text in ("请问□有什么症状呢", "□有哪些症状", "□症状"):
        assert re.fullmatch(expression, text.replace("□", SUBJECT)), text
    for text in ("□没有症状", "请问□", "□症状呢呢"):
        assert not re.fullmatch(expression, text.replace("□", SUBJECT)), text


def test_what_is_written_as_json_is_read():
    file = FactsFile.model_validate(FACTS)
    assert FactsFile.model_validate_json(file.model_dump_json()) == file
    assert file.facts[0].id == "高血压|symptoms"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macros": {}}, "unknown macro <which>"),
        ({"macros": {"which": "("}}, "no regular expression"),
        ({"macros": {"subject": "病"}}, "stand for something already"),
        ({"macros": {"which": "(?:需要|需|要)*"}}, "repeat a group with"),
        ({"frames": {"zh": "(?:请问)+<question>"}}, "repeat a group with"),
        ({"frames": {"zh": "(?:请问){1,3}<question>"}}, "repeat a group with"),
        ({"frames": {"zh": "请问"}}, "expected <question> once"),
        ({"questions": {"symptoms": {"zh": ["有什么症状"]}}}, "expected <subject> once"),
        ({"questions": {"symptoms": {"zh": ["<subject>和<subject>"]}}}, "expected <subject> once"),
        ({"questions": {"symptoms": {"de": ["<subject>"]}}}, "'zh' or 'en'"),
        ({"aliases": {"高血压": []}}, "at least 1"),
        ({"alias": {}}, "did you mean 'aliases'"),
    ],
)
def test_wrong_wording_is_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        Wording.model_validate(WORDING | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": {"冠心病": ["冠心病"]}}, "a subject without a name"),
        ({"facts": FACTS["facts"] * 2}, "stands there twice"),
        ({"facts": []}, "at least 1"),
        ({"facts": [FACTS["facts"][0] | {"texts": {}}]}, "at least 1"),
    ],
)
def test_wrong_facts_are_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        FactsFile.model_validate(FACTS | changes)
