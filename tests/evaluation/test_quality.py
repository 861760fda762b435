"""Scores of free answers, labels and likelihoods: known values, and edges."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.metrics import Share, macro_f1
from limbeck.evaluation.quality import (
    compare_likelihoods,
    compare_to_floors,
    measure_labels,
    measure_likelihoods,
    measure_texts,
)
from limbeck.evaluation.text_overlap import chrf, rouge_l, token_f1, tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Take it, twice!", ["take", "it", "twice"]),
        ("头痛2天", ["头", "痛", "[172800 s]"]),
        ("CT检查", ["ct", "检", "查"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("2.5 mg of B12", ["[1/400 g]", "of", "b12"]),
        ("", []),
    ],
)
def test_tokens_are_words_characters_and_quantities(text, tokens):
    assert tokenize(text) == tokens


def test_known_overlaps():
    one, other = ["the", "cat", "sat", "on", "the", "mat"], ["the", "mat", "sat"]
    assert token_f1(one, expected=other) == pytest.approx(2 * 3 / 9)
    assert rouge_l(one, expected=other) == pytest.approx(2 * 2 / 9)
    assert token_f1([], expected=other) == rouge_l([], expected=other) == 0.0
    # Of the orders 1 to 3, precision 1, 1, 1 and recall 3/4, 2/3, 1/2; F2 of their means.
    precision, recall = 1.0, (3 / 4 + 2 / 3 + 1 / 2) / 3
    assert chrf("abc", expected="abcd") == pytest.approx(
        5 * precision * recall / (4 * precision + recall), abs=0.15
    )
    assert chrf("abc", expected="abc") == pytest.approx(1.0)
    assert chrf("", expected="abc") == 0.0


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_an_overlap_is_symmetric_and_one_only_for_equals(left, right):
    for score in (token_f1, rouge_l):
        value = score(left, expected=right)
        assert 0 <= value <= 1
        assert value == score(right, expected=left)
    assert token_f1(left, expected=right) >= rouge_l(left, expected=right)
    assert (rouge_l(left, expected=right) == 1) is (left == right != [])


def answered(place, answer, *, expected=("右",), task="test_split", correct=False, **fields):
    return AnsweredQuestion(
        id=str(place),
        task=task,
        form=fields.pop("form", "single"),
        question="?",
        expected=expected,
        specialty="",
        group=fields.pop("group", ""),
        answer=answer,
        correct=correct,
        agreement_ratio=0.0,
        confidence_ratio=1.0,
        option_scores=fields.pop("option_scores", ()),
        **fields,
    )


def test_free_answers_are_scored_with_intervals_by_group():
    values = ["take 2 mg", "take 20 mg", "no", "take 2 mg"]
    items = [answered(n, text, expected=("take 2 mg",)) for n, text in enumerate(values)]
    found = measure_texts(items, language="en")["test_split"]
    assert found.exact_match.value == 0.5
    assert found.token_f1.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert found.rouge_l.value == found.token_f1.value
    assert 0.5 < found.chrf.value < 1
    twice = [
        answered(f"{n}{copy}", text, expected=("take 2 mg",), group=str(n))
        for n, text in enumerate(values)
        for copy in range(2)
    ]
    again = measure_texts(twice, language="en")["test_split"]
    for name in ("token_f1", "chrf", "rouge_l"):
        one, other = getattr(found, name), getattr(again, name)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
        assert 0 <= one.low < one.value < one.high <= 1
        assert (one.count, other.count) == (4, 8)


def test_free_answers_to_questions_of_ones_own_are_scored():
    """As those of the test split; labels, choices and lists of the same task are not."""
    free = [
        answered(n, f"take {n} mg", task="doses", expected=(f"take {n} mg daily", "x"))
        for n in range(6)
    ]
    lists = [answered(f"l{n}", "a, b", task="doses", form="list") for n in range(3)]
    choices = [
        answered(f"c{n}", "a", task="doses", expected=("a",), options=("a", "b")) for n in range(3)
    ]
    found = measure_texts([*free, *lists, *choices], language="en")
    assert found.keys() == {"doses"}
    assert found["doses"] == measure_texts(free, language="en")["doses"]
    assert found["doses"].rouge_l.value == pytest.approx(2 * 2 / 5)
    assert found["doses"].rouge_l.count == 6
    names = "abcdefghijkl"
    rare = [answered(n, "a", task="t", expected=(names[n % 12],)) for n in range(24)]
    assert measure_texts(rare, language="en") == measure_texts(free[:4], language="en") == {}
    labels = [answered(n, "yes", task="t", expected=("yes" if n % 2 else "no",)) for n in range(20)]
    refused = [answered(n, "no", task="t", expected=("I do not know",)) for n in range(20)]
    assert measure_texts([*lists, *choices], language="en") == {}
    assert measure_texts(labels, language="en") == measure_texts(refused, language="en") == {}


def test_lists_among_held_out_answers_have_their_entity_f1():
    lists = [
        dataclasses.replace(answered(n, "a", form="list"), agreement_ratio=n / 4) for n in range(5)
    ]
    found = measure_texts([*lists, answered("x", "b")], language="en")["test_split"]
    assert (found.entity_f1.value, found.entity_f1.count) == (0.5, 5)
    assert 0 <= found.entity_f1.low < 0.5 < found.entity_f1.high <= 1
    assert measure_texts([answered("x", "b")], language="en")["test_split"].entity_f1 is None


def test_the_language_of_free_answers_counts():
    items = [answered(0, "1000,5 kg", expected=("1.000,5 kg",))]
    assert measure_texts(items, language="de")["test_split"].exact_match.value == 1.0
    assert measure_texts(items, language="en")["test_split"].exact_match.value == 0.0


def test_macro_f1_is_the_mean_over_labels():
    right = np.array([0, 0, 0, 1, 1, 2])
    given_labels = np.array([0, 0, 1, 1, -1, 0])
    found = macro_f1(given=given_labels, right=right, num_labels=3, groups=list("abcdef"))
    # F1 of the labels: 2*2/(3+3), 2*1/(2+2), 0.
    assert found.value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.low < found.value < found.high
    perfect = macro_f1(given=right, right=right, num_labels=3, groups=list("abcdef"))
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)


def test_macro_f1_counts_a_group_once():
    rng = np.random.default_rng(0)
    right = rng.integers(0, 3, 60)
    given_labels = np.where(rng.random(60) < 0.7, right, (right + 1) % 3)
    alone = macro_f1(
        given=given_labels, right=right, num_labels=3, groups=[str(n) for n in range(60)]
    )
    together = macro_f1(
        given=given_labels.repeat(4),
        right=right.repeat(4),
        num_labels=3,
        groups=[str(n // 4) for n in range(240)],
    )
    assert together.value == pytest.approx(alone.value)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_labels_are_single_answers_of_few_kinds():
    items = [
        answered(n, "甲" if n % 3 else "丙", expected=("甲" if n % 2 else "乙",), task="intent")
        for n in range(12)
    ]
    items = [
        AnsweredQuestion(**(vars(item) | {"correct": item.answer in item.expected}))
        for item in items
    ]
    found = measure_labels(items)["intent"]
    assert (found.num_labels, found.macro_f1.count) == (2, 12)
    hits = sum(item.correct for item in items)
    assert found.accuracy.value == hits / 12
    # 甲: asked 6 times, given 8 times; 乙 is never given.
    assert found.macro_f1.value == pytest.approx((2 * hits / (6 + 8) + 0) / 2)
    free = [answered(n, "x", expected=(f"答案{n}",)) for n in range(12)]
    assert measure_labels(free) == {}
    assert measure_labels([answered(n, "甲", expected=("甲",)) for n in range(12)]) == {}


def test_nats_a_byte_are_those_of_all_answers_over_all_their_bytes():
    items = [
        answered(0, "", expected=("ab",), option_scores=(-1.0,), answer_tokens=3),
        answered(1, "", expected=("头痛",), option_scores=(-2.0,), answer_tokens=5),
    ]
    found = measure_likelihoods(items, others=[items])
    assert found is not None
    assert found.nats_per_byte.value == pytest.approx((1 * 3 + 2 * 5) / (2 + 6))
    assert found.per_token.value == -1.5
    assert found.nats_per_byte.low < found.nats_per_byte.value < found.nats_per_byte.high
    # What another model cannot read is left out of both.
    blind = [items[0], answered(1, "", expected=("头痛",))]
    both = measure_likelihoods(items, others=[items, blind])
    assert both is not None
    assert (both.per_token.count, both.nats_per_byte.value) == (1, 1.5)
    assert measure_likelihoods(blind[1:], others=[blind[1:]]) is None
    assert not math.isnan(both.nats_per_byte.low)


def test_a_difference_of_likelihoods_is_paired():
    """One model needs a tenth less for each answer, however long and hard these are."""
    rng = np.random.default_rng(0)
    scores, tokens = -rng.gamma(2.0, size=40), rng.integers(2, 60, size=40)
    own, reference = (
        [
            answered(
                place,
                "",
                expected=("ab" * int(tokens[place]),),
                option_scores=(factor * float(scores[place]),),
                answer_tokens=int(tokens[place]),
            )
            for place in range(40)
        ]
        for factor in (0.9, 1.0)
    )
    found = compare_likelihoods(own, reference=reference)
    both = [own, reference]
    ours, theirs = (measure_likelihoods(items, others=both).nats_per_byte for items in both)
    assert found.count == 40
    assert found.value == pytest.approx(ours.value - theirs.value)
    assert found.low < found.value < found.high < 0
    assert ours.high > theirs.low
    assert found.high - found.low == pytest.approx(0.1 * (theirs.high - theirs.low))
    unread = [*own[:-1], answered(39, "", expected=("ab",))]
    assert compare_likelihoods(unread, reference=reference).count == 39
    assert compare_likelihoods(unread[-1:], reference=reference[-1:]) is None


def test_a_floor_beats_only_with_more_right_answers():
    def share(value):
        return Share(value, 0.0, 1.0, 10)

    shares = {"recall": share(0.5), "choice": share(0.9)}
    floors = {
        "lookup": {"recall": share(0.6), "choice": share(0.9)},
        "linear": {"recall": share(0.7)},
    }
    assert compare_to_floors(shares, floors=floors) == {"recall": ("lookup", "linear")}
