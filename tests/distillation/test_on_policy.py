"""On-policy steps: drawn from the seed, judged by the teacher alone, equal to TRL's loss."""

import numpy as np
import pytest
import torch

from limbeck.contracts.errors import DataError, LaunchError
from limbeck.distillation.config import OnPolicy
from limbeck.distillation.losses.config import SoftTarget
from limbeck.distillation.teachers.online import OnlineTeacher
from limbeck.models.batch import IGNORED, pad_rows
from limbeck.models.forward import KeptForward
from limbeck.models.generation import sample
from limbeck.objectives.base import ObjectiveContext
from limbeck.training.config import TrainingConfig
from limbeck.training.loop import fit

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5], [11, 4], [12, 13, 14, 4]]
WRITTEN = [[8, 9, 3], [10, 3], [5, 5, 5, 3], [6, 3]]


class Written:
    """Four records, all of them in every step."""

    ids = np.arange(4)
    answer_starts = np.asarray([len(prompt) for prompt in PROMPTS])
    has_images = False

    def __call__(self, step):
        rows = [np.asarray(PROMPTS[row] + WRITTEN[row]) for row in range(4)]
        return [
            pad_rows(rows, starts=self.answer_starts.tolist(), pad=0, record_ids=list(range(4)))
        ]

    def order(self, step):
        return np.arange(4)

    def prompt(self, index):
        return PROMPTS[index]


def part(rows, *, lengths):
    return [item.tolist() for item in np.array_split(rows[np.argsort(lengths)], 2)]


write = Written()


def make_own(model, *, seed=0, end_ids=(3,), vocab=10**6, max_tokens=32, **changes):
    config = OnPolicy(**({"ratio": 1.0, "max_new_tokens": 6} | changes))
    return config.build(
        model=model,
        records=write,
        written=write,
        split=part,
        max_tokens=max_tokens,
        vocab=vocab,
        end_ids=end_ids,
        pad_id=0,
        seed=seed,
    )


def flatten(batches):
    return {
        row: (ids[mask].tolist(), labels[mask].tolist())
        for batch in batches
        for row, ids, labels, mask in zip(
            batch.record_ids.tolist(), batch.input_ids, batch.labels, batch.tokens, strict=True
        )
    }


def test_a_step_is_the_students_own_with_the_given_chance(dense):
    own = make_own(dense, ratio=0.3)
    chosen = [own.is_on_policy(step) for step in range(2000)]
    # Five standard deviations of a binomial share.
    assert abs(np.mean(chosen) - 0.3) < 5 * (0.3 * 0.7 / 2000) ** 0.5
    again, other = make_own(dense, ratio=0.3), make_own(dense, ratio=0.3, seed=-1)
    assert chosen == [again.is_on_policy(step) for step in range(2000)]
    assert chosen != [other.is_on_policy(step) for step in range(2000)]
    never, always = make_own(dense, ratio=0.0), make_own(dense)
    assert not any(never.is_on_policy(step) for step in range(2000))
    assert all(always.is_on_policy(step) for step in range(2000))


def test_batches_hold_the_same_questions_and_the_students_answers(moe):
    own = make_own(moe)
    batches = own(0)
    assert all(batch.answers_from == "student" for batch in batches)
    assert batches[0].to(torch.device("meta")).answers_from == "student"
    found = flatten(batches)
    for row, prompt in enumerate(PROMPTS):
        ids, labels = found[row]
        assert ids[: len(prompt)] == prompt
        assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]
        answer = ids[len(prompt) :]
        assert 1 <= len(answer) <= 6 and 3 not in answer[:-1]
    lengths = [len(found[row][0]) - len(PROMPTS[row]) for row in range(4)]
    assert own.generation_metrics()["own_answer_tokens_mean"] == pytest.approx(np.mean(lengths))
    assert flatten(make_own(moe)(0)) == found != flatten(make_own(moe)(1))


def test_answers_are_those_of_the_one_generation(dense):
    """Prompt after prompt in the order of length, from one generator."""
    found = flatten(make_own(dense, generation_batch_size=4)(2))
    order = sorted(range(4), key=lambda row: len(PROMPTS[row]))
    expected = sample(
        dense,
        [PROMPTS[row] for row in order],
        num_samples=1,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=6,
        end_ids=(3,),
        generator=torch.Generator().manual_seed(hash((0, 2)) % 2**63),
    )
    for row, answer in zip(order, expected, strict=True):
        assert found[row][0] == PROMPTS[row] + list(answer.tokens)


def test_questions_that_were_cut_off_are_left_out_and_counted(dense):
    own = make_own(dense, max_tokens=4)
    assert sorted(flatten(own(0))) == [0, 2]
    assert own.generation_metrics()["own_answers_without_room"] == 2
    with pytest.raises(DataError, match=r"fills batching\.max_length 2"):
        make_own(dense, max_tokens=2)


def test_tokens_unknown_to_the_teacher_are_not_drawn(dense):
    found = flatten(make_own(dense, vocab=15, max_new_tokens=40, end_ids=())(0))
    assert max(max(ids) for ids, _ in found.values()) == 14


def test_answers_that_end_at_once_still_carry_a_position(dense):
    """Every token is the end: each row keeps the position that foretells it."""
    dense.lm_head.weight = torch.nn.Parameter(torch.zeros_like(dense.lm_head.weight))
    own = make_own(dense, vocab=1, end_ids=(0,))
    batches = own(0)
    assert sum(int(batch.kept.sum()) for batch in batches) == 4
    metrics = own.generation_metrics()
    assert metrics["own_answer_tokens_mean"] == 1 and metrics["own_ended_ratio"] == 1
    teacher = OnlineTeacher(dense, vocab=dense.config.vocab_size)
    objective = SoftTarget(kind="soft_target").build(ObjectiveContext(dense, teacher=teacher))
    assert sum(objective(KeptForward(dense), batch).count for batch in batches) == 4


def test_answers_that_do_not_end_are_reported(dense, capsys, monkeypatch):
    monkeypatch.setattr("limbeck.distillation.on_policy.PLAIN_INTERVAL_SECONDS", 0.0)
    endless, brief = (make_own(dense, end_ids=end_ids, vocab=2) for end_ids in ((), (0,)))
    assert endless(0) and brief(0)
    assert "raise on_policy.max_new_tokens" in endless.warn()[0]
    assert brief.warn() == [] == make_own(dense).warn()
    assert "step 0: 4 of 4 answers sampled" in capsys.readouterr().err


def test_a_launcher_and_images_are_refused(dense, monkeypatch):
    monkeypatch.setattr(write, "has_images", True, raising=False)
    with pytest.raises(DataError, match=r"set batching\.images: without"):
        make_own(dense)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="run without a launcher"):
        make_own(dense)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_an_own_answer_is_no_label(weight, moe, dense):
    (*_, batch) = make_own(dense)(0)
    teacher = OnlineTeacher(moe, vocab=moe.config.vocab_size)
    objective = SoftTarget(kind="soft_target", weight=weight).build(
        ObjectiveContext(dense, teacher=teacher)
    )
    loss = objective(KeptForward(dense), batch)
    assert loss.parts == {"kl": loss.sum.item()}
    (written,) = write(0)
    assert set(objective(KeptForward(dense), written).parts) == {"kl", "ce"}


DIVERGENCES = {
    0.0: {"kind": "forward_kl"},
    1.0: {"kind": "reverse_kl"},
    **{beta: {"kind": "jensen_shannon", "beta": beta} for beta in (0.1, 0.5, 0.9)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("beta", DIVERGENCES)
def test_the_loss_on_own_answers_is_trls(beta, temperature, moe, dense):
    """TRL's mean is over kept tokens, and it leaves the square of the temperature out."""
    from trl.experimental.gkd import GKDTrainer

    teacher = OnlineTeacher(moe, vocab=moe.config.vocab_size)
    objective = SoftTarget(
        kind="soft_target", weight=0.2, temperature=temperature, divergence=DIVERGENCES[beta]
    ).build(ObjectiveContext(dense, teacher=teacher))
    for batch in make_own(dense)(0):
        loss = objective(KeptForward(dense), batch)
        loss.sum.backward()
        ours = [item.grad.clone() for item in dense.parameters()]
        dense.zero_grad()
        with torch.no_grad():
            teacher_logits = moe(batch.input_ids, use_cache=False).logits
        expected = GKDTrainer.generalized_jsd_loss(
            student_logits=dense(batch.input_ids, use_cache=False).logits[:, :-1],
            teacher_logits=teacher_logits[:, :-1],
            labels=batch.labels[:, 1:],
            beta=beta,
            temperature=temperature,
        )
        scale = loss.count * temperature**2
        assert loss.sum.item() == pytest.approx(scale * expected.item(), rel=1e-4)
        expected.backward()
        for item, grad in zip(dense.parameters(), ours, strict=True):
            torch.testing.assert_close(scale * item.grad, grad, rtol=1e-3, atol=1e-5)
        dense.zero_grad()


def train(model, teacher, *, state, own, steps=6, stop=None, lr=0.01):
    def source(step):
        if step == stop:
            raise KeyboardInterrupt
        return own(step)

    objective = SoftTarget(
        kind="soft_target", temperature=1.0, divergence={"kind": "reverse_kl"}
    ).build(
        ObjectiveContext(model, teacher=OnlineTeacher(teacher, vocab=teacher.config.vocab_size))
    )
    config = TrainingConfig(
        max_steps=steps, learning_rate=lr, warmup_steps=0, save_interval_seconds=0, logging_steps=1
    )
    history = fit(
        model,
        batches=source,
        objective=objective,
        config=config,
        state=state,
        title="test",
        stateful=own,
    )
    weights = torch.cat([item.detach().flatten() for item in model.state_dict().values()])
    return own.add_generation_stats(history), weights


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_goes_on_alike(stop, dense_config, moe, tokenizer, tmp_path):
    def go(folder, stop=None):
        model = dense_config.build(tokenizer=tokenizer, seed=1)
        own = make_own(model, ratio=0.6)
        return *train(
            model, moe, state=tmp_path / folder, own=own, stop=stop
        ), own.generation_metrics()

    history, weights, measured = go("a")
    with pytest.raises(KeyboardInterrupt):
        go("b", stop)
    again, others, measured_again = go("b")
    assert again == history and torch.equal(weights, others)
    assert 0 < measured["on_policy_steps"] < 6
    for name in set(measured) - {"generated_tokens_per_second"}:
        assert measured[name] == measured_again[name]


def test_no_chance_is_off_to_the_bit(dense_config, moe, tokenizer, tmp_path):
    first, second = (dense_config.build(tokenizer=tokenizer, seed=1) for _ in range(2))
    own = make_own(first, ratio=0.0)
    history, weights = train(first, moe, state=tmp_path / "a", own=own)
    objective = SoftTarget(
        kind="soft_target", temperature=1.0, divergence={"kind": "reverse_kl"}
    ).build(ObjectiveContext(second, teacher=OnlineTeacher(moe, vocab=moe.config.vocab_size)))
    config = TrainingConfig(max_steps=6, learning_rate=0.01, warmup_steps=0, logging_steps=1)
    plain = fit(
        second,
        batches=write,
        objective=objective,
        config=config,
        state=tmp_path / "b",
        title="test",
    )
    expected = torch.cat([item.detach().flatten() for item in second.state_dict().values()])
    assert history == plain and torch.equal(weights, expected)
    assert own.generation_metrics() == {"on_policy_steps": 0}


def test_training_on_own_answers_lowers_reverse_kl_there(dense_config, moe, tokenizer, tmp_path):
    model = dense_config.build(tokenizer=tokenizer, seed=1)
    own = make_own(model)

    def measure():
        teacher = OnlineTeacher(moe, vocab=moe.config.vocab_size)
        divergence = SoftTarget(
            kind="soft_target", temperature=1.0, divergence={"kind": "reverse_kl"}
        ).build(ObjectiveContext(model, teacher=teacher))
        total, count = 0.0, 0
        for step in range(100, 105):
            for batch in make_own(model)(step):
                with torch.no_grad():
                    loss = divergence(KeptForward(model), batch)
                total, count = total + loss.sum.item(), count + loss.count
        return total / count

    before = measure()
    history, _ = train(model, moe, state=tmp_path, own=own, steps=30, lr=0.02)
    assert measure() < 0.5 * before
    assert len(history) == 30 and all("own_answer_tokens" in point for point in history)
    assert own(0)[0].kept.any()
