"""Early stopping: when it stops, whose weights stay, what a kill changes, what is refused."""

import itertools
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, TrainingError
from limbeck.data.loading.batches import Batches, validation_batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.evaluation.validation_loss import measure_validation
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.stages.config import distill, prune, train
from limbeck.training.config import EarlyStopping, TrainingConfig
from limbeck.training.early_stopping import EarlyStopper, make_stopper
from limbeck.training.loop import fit
from limbeck.training.lr_schedule import find_lr

BATCHING = BatchingConfig(
    per_device_train_batch_size=4, gradient_accumulation_steps=1, select="questions"
)
SETTINGS = {
    "max_steps": 40,
    "learning_rate": 0.1,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant_with_warmup",
    "save_interval_seconds": 0.0,
    "logging_steps": 100,
    "early_stopping": {"eval_steps": 2, "patience": 2},
}


def weights(model):
    return torch.cat([item.detach().flatten() for item in model.state_dict().values()])


def run(build, *, corpus, tokenizer, state, stop=None):
    """A training at so high a rate that its loss soon rises; killed before step `stop`."""
    model, corpus = build(tokenizer=tokenizer, seed=0), Corpus(corpus)
    held_out = partial(validation_batches, corpus, tokenizer=tokenizer, config=BATCHING)
    config = TrainingConfig.model_validate(SETTINGS)
    stopper = make_stopper(config, held_out=held_out)
    batches = Batches(corpus, tokenizer=tokenizer, config=BATCHING)

    def source(step):
        if step == stop:
            raise KeyboardInterrupt
        return batches(step)

    history = fit(
        model,
        batches=source,
        objective=NextToken(kind="next_token").build(ObjectiveContext(model)),
        config=config,
        state=state,
        title="test",
        stopper=stopper,
    )
    return model, history, stopper, measure_validation(model, held_out())["validation_loss"]


def test_the_best_weights_stay_and_a_killed_run_ends_as_an_uninterrupted_one(
    moe_config, corpus, tokenizer, tmp_path
):
    build = moe_config.build
    model, history, stopper, loss = run(
        build, corpus=corpus, tokenizer=tokenizer, state=tmp_path / "a"
    )
    curve = {point["step"] + 1: point["validation_loss"] for point in history[1:]}
    assert stopper.best_loss == min(curve.values()) == curve[stopper.best_step]
    assert loss == pytest.approx(stopper.best_loss, rel=1e-6)
    assert stopper.metrics(max_steps=40)["stopped_early"]
    assert stopper.best_step < stopper.stopped_step < 40
    assert max(curve) == stopper.stopped_step
    for stop in (stopper.best_step + 1, stopper.stopped_step - 1):
        with pytest.raises(KeyboardInterrupt):
            run(
                build,
                corpus=corpus,
                tokenizer=tokenizer,
                state=tmp_path / str(stop),
                stop=stop,
            )
        again = run(build, corpus=corpus, tokenizer=tokenizer, state=tmp_path / str(stop))
        assert again[1] == history
        assert torch.equal(weights(again[0]), weights(model))
        assert again[2].metrics(max_steps=40) == stopper.metrics(max_steps=40)


@pytest.mark.parametrize(
    ("losses", "threshold", "stops_after", "best_step"),
    [
        ([5, 4, 3, 2, 1], 0.0, None, 5),
        ([5, 4, 4, 4, 3], 0.0, 4, 2),
        ([5, 6, 4, 5, 6], 0.0, 5, 3),
        ([5, 4.9, 4.8, 4.7], 0.5, 3, 3),
    ],
)
def test_patience_counts_measurements_without_an_improvement(
    losses, threshold, stops_after, best_step, dense
):
    config = EarlyStopping(eval_steps=1, patience=2, threshold=threshold)
    stopper = EarlyStopper(config, held_out=lambda: itertools.repeat(None, 1))
    stops = (
        step
        for step, loss in enumerate(losses, start=1)
        if stopper.note(float(loss), done=step, model=dense)
    )
    assert next(stops, None) == stops_after
    assert stopper.best_step == best_step


def test_a_loss_that_is_no_number_is_named(dense, corpus, tokenizer):
    held_out = partial(validation_batches, Corpus(corpus), tokenizer=tokenizer, config=BATCHING)
    stopper = EarlyStopper(EarlyStopping(), held_out=held_out)
    with torch.no_grad():
        dense.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="validation loss is nan"):
        stopper.measure(dense)


def test_without_validation_records_it_is_refused_before_the_first_step():
    with pytest.raises(DataError, match=r"splits\.validation_ratio"):
        EarlyStopper(EarlyStopping(), held_out=lambda: ())


def entry(stage, **changes):
    stopping = {"max_steps": 2, "early_stopping": {}}
    return {"stage": stage, "corpus": "c", "training": stopping} | changes


@pytest.mark.parametrize(
    ("config", "fields", "words"),
    [
        (train.Config, {"model": "m", "objective": {"kind": "dpo"}}, "objective 'dpo'"),
        (train.Config, {"model": "m", "objective": {"kind": "contrastive"}}, "does not raise"),
        (
            prune.Config,
            {"checkpoint": "m", "channels_ratio": 0.5, "objective": {"kind": "next_token"}},
            "grows until max_steps",
        ),
    ],
)
def test_what_the_validation_loss_cannot_end_is_refused(config, fields, words):
    stage = config.__module__.rpartition(".")[2]
    with pytest.raises(ValidationError, match=words):
        config.model_validate(entry(stage, **fields))


def test_a_distillation_takes_it():
    fields = {"student": "s", "teacher": "t", "objective": {"kind": "soft_target"}}
    found = distill.Config.model_validate(entry("distill", **fields))
    assert found.training.early_stopping == EarlyStopping()


def test_a_constant_rate_does_not_depend_on_the_last_step():
    rates = [
        [
            find_lr(step, config=TrainingConfig.model_validate(SETTINGS | changes))
            for step in range(8)
        ]
        for changes in ({"warmup_steps": 4}, {"warmup_steps": 4, "max_steps": 4000})
    ]
    assert rates[0] == rates[1]
    assert rates[0] == pytest.approx([0.025, 0.05, 0.075] + 5 * [0.1])
