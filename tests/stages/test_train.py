"""The stage: what it reports of a mixture and of rewards, and what it refuses."""

import json
import shutil

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import CheckpointError, DataError
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.sizing.parameters import size_model
from limbeck.stages import distill, quantize, train
from tests.support.artifacts import make_artifact, make_work


def run(model_config, *, tmp_path, corpus):
    config = train.Config.model_validate(
        {
            "stage": "train",
            "corpus": "corpus",
            "model": model_config.model_dump(),
            "objective": {"kind": "next_token"},
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            "training": {"max_steps": 2, "learning_rate": 0.001},
        }
    )
    work = make_work(tmp_path, "teacher", corpus=corpus)
    return work, train.run(config, work=work)


@pytest.mark.parametrize("changes", [{}, {"num_experts_per_tok": 3, "n_shared_experts": 1}])
def test_the_router_report_counts_every_pick(changes, moe_config, corpus, tokenizer, tmp_path):
    config = moe_config.replace(**changes)
    work, _ = run(config, tmp_path=tmp_path, corpus=corpus)
    found = json.loads((work.folder / "routing.json").read_text())
    picks = [sum(layer) for layer in found["layers"]]
    assert len(set(picks)) == 1
    assert picks[0] % config.num_experts_per_tok == 0
    for layer, row in enumerate(found["layers"]):
        parts = [value[layer] for value in found["by_specialty"].values()]
        assert [sum(column) for column in zip(*parts, strict=True)] == row
    assert all(0 < ratio <= 1 for ratio in found["entropy_ratios"])
    size = size_model(config.build(tokenizer=tokenizer, seed=0).config, context_tokens=1)
    assert found["skipped_ratio"] == pytest.approx(size.skipped_ratio)


def test_a_dense_model_reports_no_routing(dense_config, corpus, tmp_path):
    work, _ = run(dense_config, tmp_path=tmp_path, corpus=corpus)
    assert not (work.folder / "routing.json").exists()


def write_start(tmp_path, moe, tokenizer):
    (tmp_path / "start").mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path / "start")
    return make_artifact(tmp_path / "start", "checkpoint")


def reinforce(objective, *, tmp_path, corpus, start, **changes):
    config = train.Config.model_validate(
        {
            "stage": "train",
            "corpus": "corpus",
            "model": "start",
            "objective": objective,
            "batching": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
            "training": {"max_steps": 2, "learning_rate": 0.001, "logging_steps": 1},
        }
        | changes
    )
    work = make_work(tmp_path, "reinforced", corpus=corpus, model=start)
    return work, train.run(config, work=work)


GRPO = {"kind": "grpo", "num_generations": 2, "max_completion_length": 4}


def test_reinforcement_reports_rewards_and_tokens(tmp_path, corpus, moe, tokenizer):
    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    answer_format = {"joiner": "、", "unknown_answer": "不知道。"}
    (copy / "card.json").write_text(json.dumps({"answer_format": answer_format}))
    start = write_start(tmp_path, moe, tokenizer)
    steps = {
        "max_steps": {"tokens": 46 * 250, "phase": "reinforce"},
        "learning_rate": 0.001,
    }
    work, metrics = reinforce(GRPO, tmp_path=tmp_path, corpus=copy, start=start, training=steps)
    history = json.loads((work.folder / "history.json").read_text())
    assert {"reward_mean", "facts_mean", "refusal_mean", "kl", "routing"} <= set(history[0])
    assert metrics["steps"] >= 1 and metrics["tokens_planned"] == 250
    assert metrics["budget_seen_ratio"] == metrics["tokens_seen"] / (46 * 250)


@pytest.mark.parametrize(
    ("objective", "changes", "error", "message"),
    [
        ({"kind": "dpo"}, {}, DataError, "preferences: plausible"),
        (GRPO, {}, DataError, "does not describe the corpus's domain"),
        (
            GRPO | {"max_completion_length": 4000},
            {},
            DataError,
            "lower objective.max_completion_length",
        ),
        (GRPO, {"batching": {"max_length": 4}}, DataError, "fills batching.max_length 4"),
    ],
)
def test_what_reinforcement_refuses(
    objective, changes, error, message, tmp_path, corpus, moe, tokenizer
):
    start = write_start(tmp_path, moe, tokenizer)
    with pytest.raises(error, match=message):
        reinforce(objective, tmp_path=tmp_path, corpus=corpus, start=start, **changes)


@pytest.mark.parametrize("kind", ["dpo", "grpo"])
def test_a_fresh_model_has_nothing_to_reinforce(kind, moe_config):
    with pytest.raises(ValidationError, match="fine-tune first"):
        train.Config.model_validate(
            {
                "stage": "train",
                "corpus": "c",
                "model": moe_config.model_dump(),
                "objective": {"kind": kind},
                "training": {"max_steps": 1},
            }
        )


@pytest.mark.parametrize(("kind", "what"), [("dpo", "pairs"), ("grpo", "rollouts")])
def test_other_stages_refuse_it(kind, what):
    with pytest.raises(ValidationError, match=f"learns from {what}, which only the stage `train`"):
        quantize.Config.model_validate(
            {
                "stage": "quantize",
                "checkpoint": "a",
                "corpus": "c",
                "scheme": {"kind": "int8"},
                "objective": {"kind": kind},
                "training": {"max_steps": 1},
            }
        )


def train_from_teacher(dense_config, *, work, **changes):
    config = train.Config.model_validate(
        {
            "stage": "train",
            "corpus": "corpus",
            "model": dense_config.model_dump(),
            "initialize_from": "teacher",
            "objective": {"kind": "next_token"},
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            "training": {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0},
        }
        | changes
    )
    return train.run(config, work=work)


@pytest.fixture
def with_teacher(tmp_path, corpus, moe, tokenizer):
    teacher = write_start(tmp_path, moe, tokenizer)
    return make_work(tmp_path, "alone", corpus=corpus, initialize_from=teacher)


def test_a_fresh_model_starts_from_a_teachers_weights(with_teacher, moe, dense_config):
    metrics = train_from_teacher(dense_config, work=with_teacher)
    found = load_model(with_teacher.folder).get_input_embeddings().weight
    torch.testing.assert_close(found, moe.get_input_embeddings().weight)
    assert 0.1 < metrics["inherited_ratio"] < 0.9


def test_the_start_is_the_one_of_distillation(with_teacher, dense_config, tmp_path):
    """A student with and without its teacher differ in what they learn from, not in their start."""
    train_from_teacher(dense_config, work=with_teacher)
    alone = load_model(with_teacher.folder).state_dict()
    (tmp_path / "student").mkdir()
    inputs = {**with_teacher.inputs, "teacher": with_teacher.inputs["initialize_from"]}
    config = distill.Config.model_validate(
        {
            "stage": "distill",
            "student": dense_config.model_dump(),
            "teacher": "teacher",
            "initialize_from": "teacher",
            "corpus": "corpus",
            "objective": {"kind": "soft_target"},
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            "training": {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0},
        }
    )
    distill.run(config, work=Work("student", tmp_path / "student", tmp_path / "state", inputs))
    for name, value in load_model(tmp_path / "student").state_dict().items():
        torch.testing.assert_close(value, alone[name])


def test_a_checkpoint_to_go_on_with_takes_no_weights_over(dense_config, with_teacher):
    with pytest.raises(ValidationError, match="'teacher' is for a fresh model"):
        train_from_teacher(dense_config, work=with_teacher, model="start")


def test_another_tokenizers_weights_are_refused(with_teacher, moe, dense_config, tmp_path):
    folder = tmp_path / "other"
    train_tokenizer(["完全不同的字"] * 3, folder=folder, config=TokenizerConfig(min_count=1))
    path = with_teacher.one("initialize_from").path
    save_checkpoint(moe, tokenizer=load_tokenizer(folder), folder=path)
    with pytest.raises(CheckpointError, match="tokenizer is not the corpus's"):
        train_from_teacher(dense_config, work=with_teacher)
