"""The schema of safety rules: macros, expressions, texts, countries."""

import pytest
from pydantic import ValidationError

from limbeck.contracts.safety_rules import SafetyRules

RULE = {"name": "a", "any_of": [["<pain>"]], "zh": "拨打{ambulance}", "en": "call {ambulance}"}
RULES = {
    "country": "CN",
    "countries": {"CN": {"ambulance": "120", "crisis": "12356"}},
    "macros": {"pain": "痛|疼"},
    "red_flags": [RULE],
}


def test_macros_are_written_out():
    assert SafetyRules.model_validate(RULES).expand("胸<pain>") == "胸(?:痛|疼)"


def test_what_is_written_as_json_is_read():
    rules = SafetyRules.model_validate(RULES)
    assert SafetyRules.model_validate_json(rules.model_dump_json()) == rules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macros": {}}, "unknown macro <pain>"),
        ({"macros": {"pain": "<pain>"}}, "nested more than"),
        ({"macros": {"pain": "("}}, "no regular expression"),
        ({"country": "XX"}, "no numbers; known: CN"),
        ({"country": ""}, "no numbers"),
        ({"red_flags": [RULE | {"zh": "{phone}"}]}, "may hold"),
        ({"red_flags": [RULE | {"any_of": []}]}, "at least 1"),
        ({"redflags": []}, "did you mean 'red_flags'"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        SafetyRules.model_validate(RULES | changes)
