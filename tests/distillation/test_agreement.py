"""How far answers agree, and which are taken."""

import pytest

from limbeck.distillation.agreement import DisagreementError, agreement_ratios, take_samples
from limbeck.distillation.endpoint.client import UNSURE, CallError


def test_agreement_is_highest_for_the_commonest_answer():
    found = agreement_ratios(["甲、乙", "乙、甲", "甲、乙、丙", "丁"])
    assert found[0] == found[1] > found[2] > found[3] == 0
    assert agreement_ratios(["甲", "甲", "甲"]) == [1, 1, 1]


def test_equal_texts_agree_whatever_they_are():
    assert agreement_ratios(["。", "。", "其他"]) == [0.5, 0.5, 0]


def test_labels_agree_by_their_share_of_the_others():
    assert agreement_ratios(["病因", "病因", "其他", "病因"]) == pytest.approx(
        [2 / 3, 2 / 3, 0, 2 / 3]
    )


def take(*samples, keep="best", min_agreement_ratio=0.0):
    return take_samples(samples, keep=keep, min_agreement_ratio=min_agreement_ratio)


@pytest.mark.parametrize(
    ("keep", "places"), [("best", (1,)), ("distinct", (1, 0)), ("all", (1, 0, 2))]
)
def test_what_is_kept(keep, places):
    found = take("丁", "甲", "甲", CallError("cut_off", ""), keep=keep)
    assert found.places == places
    # The sample that did not end agrees with none.
    assert found.agreement_ratio == pytest.approx(1 / 3)


def test_one_sample_is_taken_as_it_is():
    assert take("甲").places == (0,)
    assert take("甲").agreement_ratio == 1


def test_too_little_agreement_is_a_reason_and_no_fault():
    with pytest.raises(DisagreementError, match=r"0\.333: 2 x 甲; 1 x 乙; 1 x 丙") as found:
        take("甲", "甲", "乙", "丙", min_agreement_ratio=0.5)
    assert found.value.reason == "disagreeing" and not found.value.is_fault
    assert take("甲", "甲", "乙", "丙", min_agreement_ratio=1 / 3).places == (0,)


def test_without_a_usable_sample_the_most_frequent_reason_counts():
    errors = [CallError("empty", ""), CallError(UNSURE, "a"), CallError(UNSURE, "b")]
    with pytest.raises(CallError) as found:
        take(*errors)
    assert found.value is errors[1] and not found.value.is_fault
    assert CallError("empty", "").is_fault
