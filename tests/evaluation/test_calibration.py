"""Calibration: the threshold lies where the drafts say, on what is held out alone."""

import math

import numpy as np
import pytest

from limbeck.contracts.answerer import Answer, Answerer, Size, as_prompt
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import SPLITS, Record
from limbeck.evaluation.calibration import CalibrationConfig, Drafts, fit, make_policy
from limbeck.evaluation.foreign import read_foreign


def draw(num, *, log_prob, familiarity, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.normal(log_prob, 0.05, num), np.clip(rng.normal(familiarity, 0.05, num), 0, 1)], axis=1
    )


def drafts(figures, is_right, *, is_unknown=False):
    count = len(figures)
    return Drafts(figures, np.broadcast_to(is_right, count), np.broadcast_to(is_unknown, count))


def test_what_is_apart_is_distinguished():
    held_out = drafts(draw(200, log_prob=-0.05, familiarity=0.9), True)
    foreign = drafts(draw(200, log_prob=-1.0, familiarity=0.2, seed=1), False)
    found = fit(held_out, foreign)
    assert found.basis == "right answers"
    assert found.declined_right_ratio == 0
    assert found.declined_foreign_ratio >= 0.97
    new_words = found.ratio(familiarity=0.55, confidence_ratio=math.exp(-0.5))
    assert new_words > found.min_confidence_ratio
    assert found.log_prob_weight > 0 and found.familiarity_weight > 0


def test_where_they_overlap_the_right_answers_are_kept():
    held_out = drafts(draw(400, log_prob=-0.5, familiarity=0.6), True)
    foreign = drafts(draw(400, log_prob=-0.5, familiarity=0.6, seed=1), False)
    found = fit(held_out, foreign)
    assert found.declined_right_ratio == 6 / 400
    assert 0.015 < found.declined_right_upper_ratio <= 0.03
    assert found.declined_foreign_ratio < 0.1


def test_of_too_few_right_drafts_none_is_declined():
    held_out = drafts(draw(98, log_prob=-0.5, familiarity=0.6), True)
    foreign = drafts(draw(194, log_prob=-0.5, familiarity=0.6, seed=1), False)
    found = fit(held_out, foreign)
    assert found.declined_right_ratio == 0
    assert 0.03 < found.declined_right_upper_ratio < 0.031


def test_no_more_is_declined_than_the_foreign_questions_ask_for():
    held_out = drafts(draw(400, log_prob=-0.3, familiarity=0.7), True)
    foreign = drafts(draw(194, log_prob=-0.4, familiarity=0.45, seed=1), False)
    found = fit(held_out, foreign)
    assert found.declined_foreign_ratio == pytest.approx(190 / 194)
    assert found.declined_foreign_lower_ratio >= 0.95
    assert found.declined_right_upper_ratio <= 0.03


@pytest.mark.parametrize("apart", [0.0, 0.1, 0.2])
def test_other_drafts_of_the_same_kind_are_declined_as_often_as_said(apart):
    """The weights and the limits come from the same drafts, and the limits hold all the same."""
    new = draw(20_000, log_prob=-0.5, familiarity=0.6, seed=10_000)
    others = draw(20_000, log_prob=-0.5 - apart, familiarity=0.6 - apart, seed=10_001)
    kept, sought = [], []
    for seed in range(60):
        found = fit(
            drafts(draw(300, log_prob=-0.5, familiarity=0.6, seed=seed), True),
            drafts(
                draw(194, log_prob=-0.5 - apart, familiarity=0.6 - apart, seed=seed + 100), False
            ),
        )
        kept.append(count_declined(found, new) <= 0.03)
        sought.append(count_declined(found, others) >= found.declined_foreign_lower_ratio)
    assert np.mean(kept) >= 0.9
    assert np.mean(sought) >= 0.9


def count_declined(confidence, figures):
    scores = figures @ [confidence.log_prob_weight, confidence.familiarity_weight] + confidence.bias
    limit = math.log(confidence.min_confidence_ratio / (1 - confidence.min_confidence_ratio))
    is_unfamiliar = figures[:, 1] < confidence.min_familiarity_ratio
    return ((scores < limit - 1e-12) | is_unfamiliar).mean()


def test_wrong_answers_count_as_foreign():
    right = draw(100, log_prob=-0.05, familiarity=0.9)
    wrong = draw(100, log_prob=-1.5, familiarity=0.9, seed=2)
    held_out = drafts(np.concatenate([right, wrong]), np.arange(200) < 100)
    found = fit(held_out, drafts(draw(100, log_prob=-1.0, familiarity=0.1, seed=1), False))
    assert found.num_right == 100
    unsure = found.ratio(familiarity=0.9, confidence_ratio=math.exp(-1.5))
    assert unsure < found.min_confidence_ratio


def test_what_a_model_declines_by_itself_needs_no_threshold():
    held_out = drafts(draw(200, log_prob=-0.3, familiarity=0.9), True)
    figures = np.concatenate(
        [
            draw(100, log_prob=-1.5, familiarity=0.5, seed=1),
            draw(100, log_prob=-0.6, familiarity=0.7, seed=2),
        ]
    )
    found = fit(held_out, drafts(figures, False, is_unknown=np.arange(200) >= 100))
    strict = fit(held_out, drafts(figures, False))
    assert found.min_confidence_ratio < strict.min_confidence_ratio
    assert found.declined_foreign_ratio >= 0.97
    assert found.declined_right_ratio == 0


def test_free_text_is_calibrated_by_its_questions():
    held_out = drafts(draw(100, log_prob=-1.0, familiarity=0.9), np.arange(100) < 5)
    found = fit(held_out, drafts(draw(100, log_prob=-1.0, familiarity=0.1, seed=1), False))
    assert found.basis == "questions"
    assert found.declined_right_ratio == 0
    assert found.declined_foreign_ratio >= 0.97


class Echo(Answerer):
    """Answers what it was taught, and anything else with little confidence."""

    def __init__(self, known):
        self.known = known
        self.asked = []

    def answer(self, prompts, *, max_new_tokens):
        questions = [as_prompt(prompt).question for prompt in prompts]
        self.asked += questions
        return [
            Answer(self.known.get(question, "？"), 1, 0.9 if question in self.known else 0.1)
            for question in questions
        ]

    def stream(self, prompt, *, max_new_tokens):
        raise NotImplementedError

    def sample(self, prompts, *, seeds, temperature, max_new_tokens):
        raise NotImplementedError

    def score(self, prompt, options):
        raise NotImplementedError

    def count_answer_tokens(self, answer):
        raise NotImplementedError

    def size(self):
        return Size(1, 1, 1)

    def num_threads(self):
        return 1


@pytest.fixture
def corpus(tmp_path):
    found = Corpus(tmp_path)
    for split in SPLITS:
        found.write_records(
            split,
            [
                Record(
                    f"{split}{n}", f"第{split}{n}号病人要看哪个科室？", f"科{n}", f"{split}{n}", "s"
                )
                for n in range(60)
            ],
        )
    return found


def test_a_policy_comes_from_validation_and_foreign_questions_alone(corpus):
    held_out = {record.question: record.answer for record in corpus.records("validation")}
    model = Echo(held_out)
    policy = make_policy(model, corpus, config=CalibrationConfig(num_questions=50))
    confidence = policy.file.confidence
    assert confidence.num_held_out == confidence.num_right == 50
    foreign = {question.question for question in read_foreign("calibration")}
    assert set(model.asked) <= set(held_out) | foreign
    assert confidence.num_foreign == len(foreign)
    assert policy.judge("第test7号病人要看哪个科室？", confidence_ratio=0.9).is_sure
    assert not policy.judge("Wie geht es dir?", confidence_ratio=0.9).is_sure


@pytest.mark.parametrize(
    ("known_of_ten", "num_right", "num_held_out"),
    [
        pytest.param(10, 400, 525, id="until enough are right"),
        pytest.param(10, 100, 175, id="the first block is enough"),
        pytest.param(2, 400, 700, id="all that there are"),
        pytest.param(0, 400, 175, id="none can be told to be right"),
    ],
)
def test_questions_are_drawn_until_enough_drafts_are_right(
    corpus, known_of_ten, num_right, num_held_out
):
    records = [Record(f"v{n}", f"第{n}床看哪科？", f"科{n}", f"v{n}", "s") for n in range(700)]
    corpus.write_records("validation", records)
    known = {item.question: item.answer for item in records if int(item.id[1:]) % 10 < known_of_ten}
    config = CalibrationConfig(num_right=num_right)
    confidence = make_policy(Echo(known), corpus, config=config).file.confidence
    assert confidence.num_held_out == num_held_out
    assert confidence.basis == ("right answers" if known_of_ten else "questions")


@pytest.mark.parametrize(
    ("count", "config", "reason"),
    [
        (60, CalibrationConfig(num_questions=0), "num_questions is 0"),
        (5, CalibrationConfig(), "5 validation questions, expected at least 30"),
        (0, CalibrationConfig(), "no record has a question"),
    ],
)
def test_too_little_is_not_calibrated_and_gives_the_reason(corpus, count, config, reason, caplog):
    records = list(corpus.records("validation"))[:count]
    corpus.write_records("validation", records)
    policy = make_policy(Echo({}), corpus, config=config)
    assert policy.file.confidence == "not calibrated"
    assert reason in policy.file.reason
    assert (reason in caplog.text) == bool(config.num_questions), "a choice needs no warning"
    assert policy.judge("？", confidence_ratio=0.0) is None
