"""How far answers agree."""

from limbeck.distillation.agreement import agreement_ratios


def test_agreement_is_highest_for_what_is_said_most():
    found = agreement_ratios(["甲、乙", "乙、甲", "甲、乙、丙", "丁"])
    assert found[0] == found[1] > found[2] > found[3] == 0
    assert agreement_ratios(["甲", "甲", "甲"]) == [1, 1, 1]
