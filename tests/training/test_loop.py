"""The loop: accumulation is exact, a resumed run is the uninterrupted one, divergence is named."""

from contextlib import closing, suppress

import pytest
import torch

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import DataError, TrainingError
from limbeck.data.loading.batches import Batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training.config import TrainingConfig
from limbeck.training.cpu_microbatches import SummedGradients, draws_random
from limbeck.training.loop import fit
from limbeck.training.lr_schedule import cosine_lr


def train(model, corpus, tokenizer, state, *, stop=None, before_step=None, **settings):
    batching = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "select": "all",
        "loss_on": "all",
    }
    training = {
        "max_steps": 6,
        "learning_rate": 0.01,
        "save_interval_seconds": 0.0,
        "logging_steps": 1,
    }
    for name, value in settings.items():
        (batching if name in batching else training)[name] = value
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=BatchingConfig(**batching))

    def source(step):
        if step == stop:
            raise KeyboardInterrupt
        return batches(step)

    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    return fit(
        model,
        batches=source,
        objective=objective,
        config=TrainingConfig(**training),
        state=state,
        title="test",
        before_step=before_step,
    )


def weights(model):
    return torch.cat([item.detach().flatten() for item in model.state_dict().values()])


def test_one_batch_of_eight_equals_eight_of_one(dense_config, corpus, tokenizer, tmp_path):
    whole = dense_config.build(tokenizer=tokenizer, seed=0)
    parts = dense_config.build(tokenizer=tokenizer, seed=0)
    first = train(
        whole,
        corpus,
        tokenizer,
        tmp_path / "a",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
    )
    second = train(
        parts,
        corpus,
        tokenizer,
        tmp_path / "b",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
    )
    for left, right in zip(first, second, strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)
        assert left["tokens"] == right["tokens"]
        assert left["gradient_norm"] == pytest.approx(right["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_equals_the_uninterrupted_one(stop, moe_config, corpus, tokenizer, tmp_path):
    straight = moe_config.build(tokenizer=tokenizer, seed=0)
    expected = train(straight, corpus, tokenizer, tmp_path / "a")
    broken = moe_config.build(tokenizer=tokenizer, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(broken, corpus, tokenizer, tmp_path / "b", stop=stop)
    resumed = moe_config.build(tokenizer=tokenizer, seed=0)
    history = train(resumed, corpus, tokenizer, tmp_path / "b")
    assert torch.equal(weights(resumed), weights(straight))
    assert history == expected


def test_each_step_is_prepared_with_the_share_of_those_before_it(
    dense_config, corpus, tokenizer, tmp_path
):
    found = []

    def note(model, progress):
        assert model.training
        found.append(progress)

    for stop in (2, None):
        model = dense_config.build(tokenizer=tokenizer, seed=0)
        with suppress(KeyboardInterrupt):
            train(model, corpus, tokenizer, tmp_path, stop=stop, before_step=note, max_steps=4)
    # The third step is prepared twice: training was ended before it.
    assert found == [0, 0.25, 0.5, 0.5, 0.75]


def test_a_damaged_state_starts_again_and_reports_it(
    moe_config, corpus, tokenizer, tmp_path, caplog
):
    (tmp_path / "training.pt").write_bytes(b"half a file")
    model = moe_config.build(tokenizer=tokenizer, seed=0)
    assert len(train(model, corpus, tokenizer, tmp_path)) == 6
    assert "starts again" in caplog.text


def test_divergence_is_named(dense_config, corpus, tokenizer, tmp_path):
    model = dense_config.build(tokenizer=tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train(model, corpus, tokenizer, tmp_path)


def test_every_step_is_reported_with_the_model_and_may_end_training(
    dense_config, corpus, tokenizer, tmp_path
):
    model = dense_config.build(tokenizer=tokenizer, seed=0)
    seen = []

    def on_step(done, steps, found):
        assert found is model
        seen.append((done, steps))
        if done == 2:
            raise KeyboardInterrupt

    batching = BatchingConfig(per_device_train_batch_size=2, select="all", loss_on="all")
    with pytest.raises(KeyboardInterrupt):
        fit(
            model,
            batches=Batches(Corpus(corpus), tokenizer=tokenizer, config=batching),
            objective=NextToken(kind="next_token").build(ObjectiveContext(model)),
            config=TrainingConfig(max_steps=6),
            state=tmp_path,
            title="test",
            on_step=on_step,
        )
    assert seen == [(1, 6), (2, 6)]


def test_training_learns(dense_config, corpus, tokenizer, tmp_path):
    model = dense_config.build(tokenizer=tokenizer, seed=0)
    history = train(model, corpus, tokenizer, tmp_path, max_steps=60, per_device_train_batch_size=6)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_schedule_warms_up_peaks_and_ends():
    settings = {"steps": 100, "peak_lr": 1.0, "warmup_steps": 10, "final_ratio": 0.1}
    rates = [cosine_lr(step, **settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_batches_cover_every_record_once_a_pass(corpus, tokenizer):
    config = BatchingConfig(
        per_device_train_batch_size=2, gradient_accumulation_steps=2, select="all"
    )
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)
    rows = [
        row for step in range(3) for batch in batches(step) for row in batch.record_ids.tolist()
    ]
    assert sorted(rows) == list(range(12))
    again = [
        row for step in range(3) for batch in batches(step) for row in batch.record_ids.tolist()
    ]
    assert rows == again


def test_repeats_show_a_source_more_often_and_refuse_unknown_ones(corpus, tokenizer):
    config = BatchingConfig(
        per_device_train_batch_size=6, gradient_accumulation_steps=4, select="all"
    )
    batches = Batches(
        Corpus(corpus), tokenizer=tokenizer, config=config.replace(repeats={"test": 2})
    )
    rows = [row for batch in batches(0) for row in batch.record_ids.tolist()]
    assert sorted(rows) == sorted([*range(12), *range(12)])
    with pytest.raises(DataError, match="nowhere"):
        Batches(Corpus(corpus), tokenizer=tokenizer, config=config.replace(repeats={"nowhere": 2}))


def test_the_number_of_cores_changes_no_bit(moe_config, corpus, tokenizer, tmp_path):
    results = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            model = moe_config.build(tokenizer=tokenizer, seed=0)
            history = train(
                model, corpus, tokenizer, tmp_path / str(count), per_device_train_batch_size=3
            )
            assert torch.get_num_threads() == count
            results.append((history, weights(model)))
    finally:
        torch.set_num_threads(before)
    for history, found in results[1:]:
        assert history == results[0][0]
        assert torch.equal(found, results[0][1])


def test_micro_batches_on_cores_equal_backward_on_their_sum(moe_config, corpus, tokenizer):
    config = BatchingConfig(
        per_device_train_batch_size=3, gradient_accumulation_steps=4, select="all", loss_on="all"
    )
    batches = Batches(Corpus(corpus), tokenizer=tokenizer, config=config)(0)
    gradients = []
    for parallel in (True, False):
        model = moe_config.build(tokenizer=tokenizer, seed=0)
        objective = NextToken(kind="next_token").build(ObjectiveContext(model))
        trained = list(model.parameters())

        def compute_loss(batch, objective=objective, model=model):
            return objective(KeptForward(model), batch)

        if parallel:
            with closing(SummedGradients(trained, num_workers=2)) as summed:
                assert sum(loss.count for loss in summed(batches, compute_loss=compute_loss)) > 0
        else:
            sum(compute_loss(batch).sum for batch in batches).backward()
        gradients.append([item.grad for item in trained])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_dropout_is_found_wherever_it_hides(dense_config, tokenizer):
    model = dense_config.build(tokenizer=tokenizer, seed=0)
    assert not draws_random(KeptForward(model))
    model.config.attention_dropout = 0.1
    assert draws_random(KeptForward(model))
    assert draws_random(torch.nn.Sequential(torch.nn.Dropout(0.1)))
