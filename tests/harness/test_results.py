"""Intervals follow from lm-eval's standard error and n."""

import math

import pytest
from lm_eval.api.metrics import mean_stderr

from limbeck.evaluation.metrics import Z_95, wilson_interval
from limbeck.harness.results import interval, read_rows
from limbeck.harness.run import name_models


@pytest.mark.parametrize("num_right", [0, 1, 13, 39, 40])
def test_right_or_wrong_answers_get_wilsons_interval(num_right):
    answers = [1.0] * num_right + [0.0] * (40 - num_right)
    share = wilson_interval(num_right, 40)
    found = interval(num_right / 40, stderr=mean_stderr(answers), num=40)
    assert found == (share.low, share.high)
    assert found[0] < found[1]


def test_other_metrics_get_the_normal_interval():
    scores = [0.2, 0.9, 0.4, 0.7]
    stderr = mean_stderr(scores)
    assert interval(0.55, stderr=stderr, num=4) == pytest.approx(
        (0.55 - Z_95 * stderr, 0.55 + Z_95 * stderr)
    )
    assert interval(18.7, stderr=0.5, num=4) == pytest.approx((18.7 - Z_95 / 2, 18.7 + Z_95 / 2))


@pytest.mark.parametrize("stderr", ["N/A", math.nan, None])
def test_no_standard_error_is_no_interval(stderr):
    assert interval(0.5, stderr=stderr, num=4) == (None, None)


def test_rows_hold_how_many_were_asked_of_which_split():
    results = {
        "results": {
            "t": {
                "alias": "t",
                "sample_len": 2,
                "acc,none": 0.5,
                "acc_stderr,none": 0.5,
                "exact_match,strict": 1.0,
                "exact_match_stderr,strict": 0.0,
            }
        },
        "n-samples": {"t": {"original": 9, "effective": 2}},
        "configs": {"t": {"validation_split": "dev"}},
        "n-shot": {"t": 3},
        "higher_is_better": {"t": {"acc": True}},
    }
    rows = read_rows(results, model="m")
    assert [(row.metric, row.value) for row in rows] == [("acc", 0.5), ("exact_match,strict", 1.0)]
    assert {(row.num_questions, row.num_available, row.split) for row in rows} == {(2, 9, "dev")}
    assert [row.higher_is_better for row in rows] == [True, None] and rows[0].num_fewshot == 3


def test_models_of_one_name_are_distinguished(tmp_path):
    paths = [tmp_path / "a" / "int8", tmp_path / "b" / "int8", tmp_path / "a" / "int8"]
    assert list(name_models(paths)) == ["a/int8", "b/int8"]
    assert list(name_models(paths[:1])) == ["int8"]
