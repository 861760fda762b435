"""Areas under ROC curves against scikit-learn and by what they mean, with intervals by image."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from limbeck.evaluation import roc_auc
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.roc_auc import area_under_roc, margins, mean_area, measure_findings

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_area_is_scikit_learns_ties_too(digits):
    scores = RNG.normal(size=300).round(digits)
    positive = RNG.random(300) < 0.3
    expected = roc_auc_score(positive, scores)
    assert area_under_roc(scores, positive=positive) == pytest.approx(expected, abs=1e-12)


def test_the_area_of_a_perfect_and_of_a_blind_model():
    positive = np.array([True, True, False, False])
    assert area_under_roc(np.array([3.0, 2, 1, 0]), positive=positive) == 1
    assert area_under_roc(np.zeros(4), positive=positive) == 0.5
    assert np.isnan(area_under_roc(np.zeros(2), positive=np.ones(2, dtype=bool)))


def test_of_two_options_the_margin_is_the_difference():
    scores = np.log(np.array([[0.2, 0.8], [0.6, 0.4]]))
    expected = scores[:, 0] - scores[:, 1]
    np.testing.assert_allclose(margins(scores), np.stack([expected, -expected], axis=1))


def make(num_images, *, phrasings, noise):
    """Scores that all phrasings about one image share."""
    right = np.repeat(RNG.integers(0, 2, num_images), phrasings)
    shared = np.repeat(RNG.normal(size=num_images) * noise, phrasings)
    scores = np.stack([-(2 * right - 1) + shared, (2 * right - 1) - shared], axis=1)
    groups = np.repeat(np.arange(num_images), phrasings).astype(str).tolist()
    return scores, right, groups


def test_more_phrasings_of_the_same_images_do_not_narrow_the_interval():
    scores, right, groups = make(150, phrasings=1, noise=1.0)
    one = mean_area(scores, right=right, groups=groups)
    many = mean_area(
        scores.repeat(4, axis=0), right=right.repeat(4), groups=np.repeat(groups, 4).tolist()
    )
    assert many.value == pytest.approx(one.value)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.2)
    assert one.low < one.value < one.high


def test_the_interval_holds_the_truth_as_often_as_stated(monkeypatch):
    """Of unit normal noise around -1 and 1 the true area is P(N(2, 2) > 0) = 0.9214."""
    monkeypatch.setattr(roc_auc, "NUM_SAMPLES", 200)
    inside = 0
    for _ in range(20):
        scores, right, groups = make(120, phrasings=1, noise=1.0)
        found = mean_area(scores, right=right, groups=groups)
        inside += found.low <= 0.9214 <= found.high
    assert inside >= 16


def asked(index, *, right, answer, scores):
    return AnsweredQuestion(
        f"q{index}",
        "finding",
        "single",
        "?",
        (right,),
        "",
        f"image {index}",
        answer,
        right == answer,
        1.0,
        0.9,
        scores,
        ("正常", "肺炎"),
    )


def test_findings_of_a_model():
    items = [
        asked(0, right="正常", answer="正常", scores=(-0.1, -2.0)),
        asked(1, right="正常", answer="肺炎", scores=(-1.0, -0.5)),
        asked(2, right="肺炎", answer="肺炎", scores=(-2.0, -0.1)),
    ]
    found = measure_findings(items)["finding"]
    assert found.auc.value == 1.0
    assert found.images == 3
    assert found.by_finding["正常"].value == 0.5
    assert found.by_finding["肺炎"].count == 1


def test_without_both_findings_there_is_no_area():
    assert measure_findings([asked(0, right="正常", answer="正常", scores=(-0.1, -2.0))]) == {}
    assert measure_findings([]) == {}
