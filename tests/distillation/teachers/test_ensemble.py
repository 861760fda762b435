"""Several teachers as one, against plain sums in float64 and against each of them alone."""

import math

import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.targets import FullLogits, ImportanceSampled, Targets, TopK
from limbeck.distillation.teachers.base import OutputTeacher
from limbeck.distillation.teachers.config import Teachers, check_teachers
from limbeck.distillation.teachers.ensemble import (
    MixedTeacher,
    SpecialtyTeacher,
    combine_teachers,
    full_log_probs,
    measure_confidence,
    mix_logs,
    take_rows,
)
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.batch import Batch, Images
from limbeck.models.checkpoints import save_checkpoint
from limbeck.objectives.config import Needs
from tests.support.artifacts import make_artifact
from tests.support.forward_kl import forward_kl

VOCAB = 9
BATCHING = BatchingConfig(select="all")


def logits(seed, rows=5, vocab=VOCAB):
    return 2 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


class Constant(OutputTeacher):
    """A teacher that returns the same for every batch."""

    def __init__(self, output, vocab=VOCAB):
        self.output, self.vocab = output, vocab

    def __call__(self, batch):
        return Targets(self.output)


def batch_of(widths=(4, 6, 3)):
    ids = torch.zeros(len(widths), max(widths), dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for row, width in enumerate(widths):
        ids[row, :width] = torch.arange(width) + 1
        labels[row, 1:width] = ids[row, 1:width]
    return Batch(ids, labels, torch.arange(len(widths)), labels != -100)


def test_the_mean_of_softened_probabilities():
    temperature, weights = 2.0, (3.0, 1.0)
    first, second = logits(0), logits(1)
    teacher = MixedTeacher(
        [Constant(FullLogits(first)), Constant(FullLogits(second))],
        config=Teachers(weights=weights),
        temperature=temperature,
    )
    mixed = (teacher(batch_of()).output.logits.double() / temperature).softmax(-1)
    p, q = ((side.double() / temperature).softmax(-1) for side in (first, second))
    torch.testing.assert_close(mixed, 0.75 * p + 0.25 * q, rtol=1e-5, atol=1e-6)


def test_to_learn_from_the_mix_is_to_learn_from_all():
    student = logits(2).requires_grad_()
    sides = [logits(0), logits(1)]
    teacher = MixedTeacher(
        [Constant(FullLogits(side)) for side in sides], config=Teachers(), temperature=3.0
    )

    def gradient(teacher_logits):
        total = forward_kl(student_logits=student, teacher_logits=teacher_logits, temperature=3.0)
        return torch.autograd.grad(total, student)[0]

    each = sum(gradient(side) for side in sides) / 2
    torch.testing.assert_close(
        gradient(teacher(batch_of()).output.logits), each, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("by", ["entropy", "max_probability"])
def test_the_surer_teacher_counts_more(by):
    logs = torch.stack([logits(0), logits(1)]).log_softmax(-1)
    found = measure_confidence(logs, by=by)
    for row, value in zip(logs.flatten(0, 1), found.flatten(), strict=True):
        p = [math.exp(item) for item in row.tolist()]
        entropy = -sum(item * math.log(item) for item in p)
        expected = max(p) if by == "max_probability" else 1 - entropy / math.log(VOCAB)
        assert value.item() == pytest.approx(expected, rel=1e-4)
    sure, unsure = torch.zeros(1, VOCAB), torch.zeros(1, VOCAB)
    sure[0, 4] = 20.0
    teacher = MixedTeacher(
        [Constant(FullLogits(unsure)), Constant(FullLogits(sure))],
        temperature=1.0,
        config=Teachers(mix="confidence", confidence=by),
    )
    share = teacher(batch_of()).output.logits.softmax(-1)[0, 4].item()
    assert share > (0.99 if by == "entropy" else 0.89)
    twice = torch.stack([logs[0], logs[0]])
    torch.testing.assert_close(mix_logs(twice, weights=found), logs[0])


def test_top_tokens_are_mixed_as_what_they_stand_for():
    whole = logits(0)
    values, ids = whole.topk(VOCAB - 2, dim=-1)
    rest = whole.scatter(1, ids, -torch.inf)
    output = TopK(values, ids, (rest / 2.0).logsumexp(-1), temperature=2.0)
    p, q = (whole / 2.0).softmax(-1), full_log_probs(output, vocab=VOCAB, temperature=2.0).exp()
    torch.testing.assert_close(q.sum(-1), torch.ones(5))
    torch.testing.assert_close(q.gather(1, ids), p.gather(1, ids))
    others = q.scatter(1, ids, 0.0)
    assert torch.allclose(others.sum(-1), p.scatter(1, ids, 0.0).sum(-1), atol=1e-6)
    assert (others > 0).sum(-1).tolist() == [2] * 5


@pytest.fixture
def pair(moe_config, tokenizer):
    models = [moe_config.build(tokenizer=tokenizer, seed=seed) for seed in (3, 4)]
    return [OnlineTeacher(model, vocab=len(tokenizer)) for model in models]


def test_each_record_is_for_its_own_teacher(corpus, tokenizer, pair):
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING)
    batch = batches.batch([4, 1, 8, 2])
    choices = {record_id: record_id % 2 for record_id in batches.records.ids.tolist()}
    teacher = SpecialtyTeacher(pair, choices=choices, temperature=2.0)
    found = teacher(batch).output.logits
    alone = [single(batch).output.logits for single in pair]
    owners = torch.tensor([0, 1, 0, 0])[batch.kept.nonzero()[:, 0]]
    expected = torch.where(owners[:, None] == 0, alone[0], alone[1])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=0.1)
    with pytest.raises(ArtifactError, match=r"record 2 .* has no teacher"):
        SpecialtyTeacher(pair, choices={1: 0, 4: 0, 8: 1}, temperature=2.0)(batch)


def test_forms_that_differ_are_softened_first():
    """Two rows for a teacher of top tokens, one for a live one; order is the batch's."""
    batch, temperature = batch_of((3, 3, 3)), 2.0
    whole, top = logits(0, rows=2), logits(1, rows=4)
    values, ids = top.topk(VOCAB - 1, dim=-1)
    tail = (top.scatter(1, ids, -torch.inf) / temperature).logsumexp(-1)
    teachers = [Constant(TopK(values, ids, tail, temperature)), Constant(FullLogits(whole))]
    turns = {0: 0, 1: 1, 2: 0}
    found = SpecialtyTeacher(teachers, choices=turns, temperature=temperature)(batch).output
    expected = torch.cat([top[:2], whole, top[2:]])
    torch.testing.assert_close(
        (found.logits / temperature).softmax(-1), (expected / temperature).softmax(-1)
    )
    alike = [
        Constant(TopK(values, ids, tail, temperature)),
        Constant(TopK(values[:2], ids[:2], tail[:2], temperature)),
    ]
    found = SpecialtyTeacher(alike, choices=turns, temperature=temperature)(batch).output
    assert torch.equal(found.ids, torch.cat([ids[:2], ids[:2], ids[2:]]))


def test_rows_keep_their_images():
    batch = batch_of()
    pixels = torch.arange(3.0).reshape(3, 1, 1, 1)
    seen = Batch(
        batch.input_ids,
        batch.labels,
        batch.record_ids,
        batch.tokens,
        Images(pixels, torch.tensor([0, 2, 2])),
    )
    part = take_rows(seen, torch.tensor([1, 2]))
    assert part.images is not None
    assert part.images.pixels.flatten().tolist() == [1.0, 2.0]
    assert part.images.rows.tolist() == [1, 1]
    assert take_rows(seen, torch.tensor([1])).images is None


@pytest.mark.parametrize(
    ("settings", "names", "needs", "message"),
    [
        ({"weights": (1, 2)}, ("a",), Needs(1.0), "remove `teachers`"),
        ({"weights": (1,)}, ("a", "b"), Needs(1.0), "one for each"),
        ({}, ("a", "a"), Needs(1.0), "names one twice"),
        ({"mix": "specialty", "otherwise": "c"}, ("a", "b"), Needs(1.0), "not among"),
        ({}, ("a", "b"), Needs(1.0, tokenizer="own"), "own tokens"),
        ({}, ("a", "b"), Needs(1.0, max_temperature=2.0), "temperature"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, names, needs, message):
    with pytest.raises(ValueError, match=message):
        check_teachers(Teachers(**settings), names=names, needs=needs)


@pytest.mark.parametrize(
    "settings",
    [
        {"mix": "specialty"},
        {"otherwise": "a"},
        {"mix": "specialty", "otherwise": "a", "weights": (1, 2)},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValueError, match="specialty"):
        Teachers(**settings)


@pytest.fixture
def opening(corpus, tokenizer, moe_config, tmp_path):
    artifacts = []
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        model = moe_config.build(tokenizer=tokenizer, seed=seed)
        save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / name)
        artifacts.append(make_artifact(tmp_path / name, "checkpoint"))

    def opened(config=None, *, count=2):
        return open_teacher(
            artifacts[:count],
            names=("a", "b")[:count],
            teachers=config or Teachers(),
            corpus=make_artifact(corpus, "corpus"),
            batches=Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING),
            needs=Needs(2.0),
        )

    return opened


def test_one_teacher_stays_as_it_is(opening):
    assert isinstance(opening(count=1), OnlineTeacher)
    assert isinstance(opening(), MixedTeacher)


def test_records_without_a_teacher_and_strange_names_are_refused(opening):
    named = {"心血管内科": "a", "呼吸内科": "b"}
    with pytest.raises(ArtifactError, match="消化内科"):
        opening(Teachers(mix="specialty", specialties=named))
    with pytest.raises(ArtifactError, match="心血管科"):
        opening(Teachers(mix="specialty", specialties={"心血管科": "a"}, otherwise="b"))
    teacher = opening(Teachers(mix="specialty", specialties=named, otherwise="b"))
    assert list(teacher.choices.values()) == [0] * 3 + [1] * 9
    by_source = opening(Teachers(mix="specialty", by="source", specialties={"test": "b"}))
    assert list(by_source.choices.values()) == [1] * 12


def test_vocabularies_that_differ_are_refused(corpus, tokenizer):
    teachers = {
        name: Constant(FullLogits(logits(0)), vocab=vocab)
        for name, vocab in (("a", VOCAB), ("b", VOCAB + 1))
    }
    with pytest.raises(ArtifactError, match="share one tokenizer"):
        combine_teachers(
            teachers,
            config=Teachers(),
            batches=Batches(Corpus(corpus), tokenizer=tokenizer, config=BATCHING),
            temperature=1.0,
        )


def test_drawn_tokens_are_refused():
    drawn = ImportanceSampled(
        torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2), torch.zeros(1, 2), temperature=1.0
    )
    with pytest.raises(ArtifactError, match="record top tokens"):
        full_log_probs(drawn, vocab=VOCAB, temperature=1.0)
