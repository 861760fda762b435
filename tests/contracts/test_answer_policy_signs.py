"""Drafts of signs alone: a rule is none, an endless row of commas is one that repeats itself."""

import pytest

from limbeck.contracts.answer_policy import repeats


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("," * 300, True),
        (" ." * 90, True),
        ("-" * 80, False),
        ("Dose" + "-" * 200, False),
        ("Dose " * 40, True),
    ],
)
def test_signs_repeat_only_where_nothing_else_is_written(text, expected):
    assert repeats(text) is expected
