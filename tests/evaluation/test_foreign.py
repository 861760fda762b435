"""The list of foreign questions: two halves apart, of many topics and languages."""

import csv
import re
from importlib import resources

from limbeck.evaluation.foreign import TOPICS, read_foreign


def test_two_halves_share_no_question():
    halves = [
        {question.question.casefold().strip(" ?？。!") for question in read_foreign(purpose)}
        for purpose in ("calibration", "measurement")
    ]
    assert len(halves[0]) >= 250
    assert len(halves[1]) >= 260
    assert not halves[0] & halves[1]


def test_topics_can_be_left_out():
    every = read_foreign("measurement")
    assert {item.specialty for item in every} <= set(TOPICS)
    without = read_foreign("measurement", without=("law", "chat"))
    assert [item.id for item in without] == [
        item.id for item in every if item.specialty not in ("law", "chat")
    ]


def test_many_languages_and_code():
    file = resources.files("limbeck.evaluation") / "foreign_questions.tsv"
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    for purpose in ("calibration", "measurement"):
        half = [row for row in rows if row["set"] == purpose]
        assert len({row["language"] for row in half}) >= 20
        assert sum(row["topic"] == "code" for row in half) >= 15
        assert all(row["question"].strip() for row in half)


def test_the_two_halves_hold_as_many_questions_put_as_a_domain_puts_them():
    """What one half is to promise of the other, it has to hold of the same kinds."""
    ends = re.compile(r"(怎么办|怎么样|怎么处理|症状|表现|原因|怎么回事)[？?]?$|有哪些")
    shares = [
        sum(ends.search(question.question) is not None for question in half) / len(half)
        for half in map(read_foreign, ("calibration", "measurement"))
    ]
    assert abs(shares[0] - shares[1]) < 0.03
