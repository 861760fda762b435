"""Held-out checks: a teacher of shuffled labels is noticed, a good one is not; what is skipped."""

import dataclasses

import numpy as np
import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import write_jsonl
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.data.loading.batches import Batches, open_validation
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.diagnostics import checks
from limbeck.distillation.diagnostics.held_out import HeldOutProbe, cosine
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.evaluation.metrics import Interval
from limbeck.models.tokenizers import load_tokenizer
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit
from tests.support.searches import DEPARTMENTS, make_records

SECOND = "子丑寅卯辰巳午未申酉戌亥天地玄黄宇宙洪荒日月盈昃"
NAMES = [first + second for second in SECOND for first in DEPARTMENTS]
BATCHING = BatchingConfig(per_device_train_batch_size=8, gradient_accumulation_steps=2)
SOFT = SoftTarget(kind="soft_target", temperature=1.0, weight=0.7)


def write_corpus(folder, *, shuffled):
    records = make_records(NAMES)
    train, validation = records[:24], records[24:]
    if shuffled:
        order = np.random.default_rng(0).permutation(len(train))
        train = [
            dataclasses.replace(record, answer=train[place].answer)
            for record, place in zip(train, order, strict=True)
        ]
    (folder / "records").mkdir(parents=True)
    for split, part in {"train": train, "validation": validation}.items():
        write_jsonl(folder / "records" / f"{split}.jsonl", part)
    texts = [record.question + record.answer for record in records]
    train_tokenizer(texts, folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    return Corpus(folder)


def learn(model, *, corpus, tokenizer, state, objective):
    batches = Batches(corpus, tokenizer=tokenizer, config=BATCHING)
    config = TrainingConfig(max_steps=30, learning_rate=0.02, warmup_steps=2)
    fit(model, batches=batches, objective=objective, config=config, state=state, title="test")
    return batches


@pytest.fixture(scope="module")
def found(dense_config, tmp_path_factory):
    """What is measured of a student of each teacher after training."""
    measured = {}
    for kind in ("good", "shuffled"):
        folder = tmp_path_factory.mktemp(kind)
        corpora = {
            name: write_corpus(folder / name, shuffled=name == "shuffled")
            for name in ("good", "shuffled")
        }
        tokenizer = load_tokenizer(corpora["good"].tokenizer_path)
        teacher, student = (dense_config.build(tokenizer=tokenizer, seed=n) for n in (1, 2))
        learn(
            teacher,
            corpus=corpora[kind],
            tokenizer=tokenizer,
            state=folder / "t",
            objective=NextToken(kind="next_token").build(ObjectiveContext(teacher)),
        )
        online = OnlineTeacher(teacher.eval().requires_grad_(False), vocab=len(tokenizer))
        context = ObjectiveContext(student, teacher=online)
        batches = learn(
            student,
            corpus=corpora["good"],
            tokenizer=tokenizer,
            state=folder / "s",
            objective=SOFT.build(context),
        )
        validation = open_validation(corpora["good"], tokenizer=tokenizer, config=BATCHING)
        examples = batches.take(24, max_tokens=10_000)
        measured[kind] = HeldOutProbe(SOFT, student, online, examples, tuple(validation.sample(64)))
    return measured


def test_a_teacher_of_shuffled_labels_is_noticed(found):
    warnings, figures = found["shuffled"].check(when="after")
    assert figures["gain_high"] < 0
    assert max(figures["teacher_cosines"]) < 0 < min(figures["label_cosines"])
    assert ["better than its teacher" in warnings[0], "raises the held-out" in warnings[1]] == [
        True,
        True,
    ]


def test_a_good_teacher_is_not(found):
    warnings, figures = found["good"].check(when="after")
    assert warnings == []
    assert figures["gain_high"] >= 0


def test_the_checks_leave_no_trace(found):
    probe = found["good"]
    before = torch.cat([item.flatten().clone() for item in probe.student.state_dict().values()])
    probe.check(when="after")
    after = torch.cat([item.flatten() for item in probe.student.state_dict().values()])
    assert torch.equal(before, after)
    assert all(item.grad is None for item in probe.student.parameters())


def test_what_cannot_be_measured_is_reported(found):
    probe = found["good"]
    bare = HeldOutProbe(SOFT, probe.student, probe.teacher, probe.examples, ())
    warnings, figures = bare.check(when="after")
    assert warnings == []
    assert figures == {
        "gain_skipped": "no validation record has a written answer",
        "cosines_skipped": "too few validation records have a written answer",
    }


@pytest.mark.parametrize(
    ("when", "bounds", "warns"),
    [
        ("before", (-0.1, -0.3, 0.1), True),
        ("before", (0.1, -0.1, 0.3), False),
        ("after", (-0.1, -0.3, 0.1), False),
        ("after", (-0.2, -0.3, -0.1), True),
    ],
)
def test_a_student_as_good_as_its_teacher_is_a_fault_only_before_training(when, bounds, warns):
    assert (checks.check_teacher_gain(Interval(*bounds), when=when) is not None) == warns


def test_both_halves_must_agree():
    assert checks.check_teacher_cosines(teacher=[-0.5, -0.1], labels=[0.2, 0.3])
    assert not checks.check_teacher_cosines(teacher=[-0.5, 0.1], labels=[0.2, 0.3])
    assert not checks.check_teacher_cosines(teacher=[-0.5, -0.1], labels=[-0.2, 0.3])


def test_a_cosine_is_that_of_all_parts_together():
    first = [torch.tensor([1.0, 2.0]), None, torch.tensor([[3.0]])]
    second = [torch.tensor([2.0, -1.0]), torch.ones(2), torch.tensor([[1.0]])]
    expected = np.dot([1, 2, 0, 0, 3], [2, -1, 1, 1, 1]) / np.sqrt(14 * 8)
    assert cosine(first, second) == pytest.approx(expected)
