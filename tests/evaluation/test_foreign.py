"""The list of foreign questions: two halves apart, of many topics and languages."""

import csv
from importlib import resources

from limbeck.evaluation.foreign import TOPICS, count_topics, read_foreign


def test_two_halves_share_no_question():
    halves = [
        {question.question.casefold().strip(" ?？。!") for question in read_foreign(purpose)}
        for purpose in ("calibration", "measurement")
    ]
    assert len(halves[0]) > 180
    assert len(halves[1]) >= 190
    assert not halves[0] & halves[1]


def test_topics_can_be_left_out():
    every = read_foreign("measurement")
    assert {item.specialty for item in every} <= set(TOPICS)
    without = read_foreign("measurement", without=("law", "chat"))
    assert count_topics(without).keys() == count_topics(every).keys() - {"law", "chat"}
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
