"""The stage with on-policy steps: what it measures, what it refuses, and that a kill is no loss."""

import json

import pytest
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import ArtifactError, DataError
from limbeck.distillation.on_policy import OnPolicyBatches
from limbeck.models.checkpoints import save_checkpoint
from limbeck.stages import distill
from tests.support.artifacts import make_artifact, make_work


@pytest.fixture
def work(tmp_path, corpus, moe, tokenizer):
    (tmp_path / "teacher").mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "teacher")
    return make_work(tmp_path, "student", teacher=tmp_path / "teacher", corpus=corpus)


def config(dense_config, *, steps=6, **on_policy):
    return distill.Config.model_validate(
        {
            "stage": "distill",
            "student": dense_config.model_dump(),
            "teacher": "teacher",
            "corpus": "corpus",
            "objective": {"kind": "soft_target"},
            "diagnostics": "off",
            "batching": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
            "training": {
                "max_steps": steps,
                "learning_rate": 0.01,
                "warmup_steps": 0,
                "logging_steps": 1,
                "save_interval_seconds": 0,
            },
        }
        | ({"on_policy": {"max_new_tokens": 5} | on_policy} if on_policy else {})
    )


def outcome(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_own_steps_are_measured_and_a_killed_run_writes_the_same_bytes(
    work, dense_config, monkeypatch, tmp_path
):
    half = config(dense_config, ratio=0.5)
    metrics = distill.run(half, work=work)
    expected, history = outcome(work.folder), json.loads((work.folder / "history.json").read_text())
    own = [point for point in history if "own_answer_tokens" in point]
    assert 0 < len(own) == metrics["on_policy_steps"] < 6
    assert all("ce" not in point for point in own)
    assert 1 <= metrics["own_answer_tokens_mean"] <= 5
    assert metrics["generated_tokens_per_second"] > 0

    (tmp_path / "again").mkdir()
    (tmp_path / "state2").mkdir()
    second = Work("student", tmp_path / "again", tmp_path / "state2", work.inputs)
    call = OnPolicyBatches.__call__

    def die(self, step):
        if step == 4:
            raise KeyboardInterrupt
        return call(self, step)

    monkeypatch.setattr(OnPolicyBatches, "__call__", die)
    with pytest.raises(KeyboardInterrupt):
        distill.run(half, work=second)
    monkeypatch.setattr(OnPolicyBatches, "__call__", call)
    again = distill.run(half, work=second)
    assert outcome(second.folder) == expected
    assert again["on_policy_steps"] == metrics["on_policy_steps"]


def test_a_ratio_of_zero_is_off(work, dense_config):
    found = []
    for changes in ({}, {"ratio": 0.0, "temperature": 3.0}):
        metrics = distill.run(config(dense_config, steps=2, **changes), work=work)
        found.append((metrics, outcome(work.folder)))
        for path in work.folder.iterdir():
            path.unlink()
        for path in work.state.iterdir():
            path.unlink()
    assert found[0] == found[1]


def test_recorded_signals_are_refused(work, dense_config, tmp_path):
    signals = (make_artifact(tmp_path / "signals", "signals"),)
    work = Work("student", work.folder, work.state, work.inputs | {"teacher": signals})
    with pytest.raises(ArtifactError, match="recorded signals; name the teacher's checkpoint"):
        distill.run(config(dense_config, ratio=0.5), work=work)


def test_answers_need_room(work, dense_config):
    long = config(dense_config, ratio=1.0, max_new_tokens=5000)
    with pytest.raises(DataError, match=r"lower on_policy\.max_new_tokens"):
        distill.run(long, work=work)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "next_token"}, "teacher": ""}, "use `soft_target`|needs a"),
        ({"batching": {"select": "all"}}, "set batching.select: questions"),
        ({"batching": {"select": "text"}}, "set batching.select: questions"),
        ({"on_policy": {"ratio": 1.5}}, "less than or equal to 1"),
        ({"on_policy": {"ratio": 0.5, "temperature": 0}}, "greater than 0"),
        ({"on_policy": {"ratio": 0.5, "lambda": 1}}, "unknown key"),
    ],
)
def test_wrong_settings_are_named(changes, message, dense_config):
    with pytest.raises(ValidationError, match=message):
        distill.Config.model_validate(config(dense_config, ratio=0.5).model_dump() | changes)
