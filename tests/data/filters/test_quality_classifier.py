import numpy as np
import pytest

from limbeck.contracts.records import UNSCORED, Record
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.normalization.record import Normalizer, normalize_record
from limbeck.data.filters.quality_classifier import (
    FEATURES,
    ClassifierConfig,
    QualityClassifier,
    auc_interval,
    move_answers,
)
from limbeck.data.readers.jsonl import Config


@pytest.fixture(scope="module")
def consult(pack):
    source = Config(path=pack.folder / "consult")
    items = [item for item in source.read(pack=pack, seed=0) if isinstance(item, Record)]
    normalizer = Normalizer("zh", source="consult")
    cleaned = [item for record in items for item in normalize_record(record, normalizer=normalizer)]
    return [item for item in cleaned if isinstance(item, Record)]


def fit(pack, records, **fields):
    scorer = QualityClassifier(Lexicon(pack.names), pack=pack)
    scorer.fit(records, config=ClassifierConfig(**fields), threshold=0.9, seed=0)
    return scorer


def test_it_distinguishes_answers_from_moved_ones_when_held_out(pack, consult):
    report = fit(pack, consult).report
    assert report["held_out_auc"]["low"] > 0.7
    assert report["good_examples_are"] == "own confidence"
    assert report["bad_dropped_ratio"] > 0.6 and report["good_kept_ratio"] > 0.5


def test_it_learns_from_records_without_a_confidence(pack, consult):
    from dataclasses import replace

    bare = [replace(r, confidence=UNSCORED) for r in consult if r.confidence > 0.9]
    scorer = fit(pack, bare)
    assert scorer.report["good_examples_are"] == "records as they stand"
    assert scorer.report["held_out_auc"]["low"] > 0.6
    assert scorer.report["good_kept_ratio"] > 0.75
    assert fit(pack, bare).score_all(bare) == scorer.score_all(bare)


def test_too_few_examples_fit_nothing_and_report_it(pack):
    records = [Record(str(i), "头痛", "多休息", str(i), "s", confidence=UNSCORED) for i in range(5)]
    scorer = fit(pack, records)
    assert not scorer.report["fitted"]
    assert scorer.score_all(records) == [0.95] * 5


def test_moved_answers_come_from_another_question_of_the_same_source():
    records = [Record(str(i), f"问{i}", f"答{i}", str(i), f"s{i % 2}") for i in range(40)]
    moved = move_answers(records, seed=0)
    assert len(moved) == 40
    for question, answer, group in moved:
        assert answer != f"答{group}" and question == f"问{group}"
        assert int(answer[1:]) % 2 == int(group) % 2


def test_features_have_their_names(pack):
    scorer = QualityClassifier(Lexicon(pack.names), pack=pack)
    values = scorer.features("高血压头晕怎么办", "点击链接加微信咨询")
    assert len(values) == len(FEATURES)
    assert dict(zip(FEATURES, values, strict=True))["spam_phrases"] == 3.0
    assert all(np.isfinite(scorer.features("", "")))


def test_auc_interval():
    labels = np.array([1] * 50 + [0] * 50)
    perfect = auc_interval(labels, labels.astype(float))
    assert perfect.value == perfect.high == 1.0
    chance = auc_interval(labels, np.zeros(100))
    assert chance.low < 0.5 < chance.high and chance.value == 0.5
