"""Several processes train the curve of one, and go on from each other's state."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from limbeck.contracts.errors import LaunchError, TrainingError
from limbeck.models.batch import Batch
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import NextToken
from limbeck.training import loop
from limbeck.training.config import TrainingConfig
from limbeck.training.distributed.ranks import assign_microbatches_to_rank, open_accelerator
from limbeck.training.loop import fit
from tests.support import tiny_recipe

TOLERANCE = 1e-5


def run_together(folder: Path, which: str) -> dict:
    main = "tests.support.distributed_cases:main"
    written = tiny_recipe.warm().call(main, folder, which, output=folder / "log")
    results = json.loads((folder / "results.json").read_text())
    missing = [name for name, found in results.items() if "killed" not in name and not all(found)]
    assert not missing, written[-4000:]
    return results


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict:
    return run_together(tmp_path_factory.mktemp("plain"), "plain")


@pytest.fixture(scope="module")
def zero(tmp_path_factory) -> dict:
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed: pip install 'limbeck[scale]'")
    return run_together(tmp_path_factory.mktemp("zero"), "zero")


def same_curve(found: list[dict], expected: dict) -> None:
    """Every process tells the same curve, that of the one; the first has the same model."""
    for process in found:
        assert process["history"] == found[0]["history"]
        assert process["biases"] == found[0]["biases"]
    assert len(found[0]["history"]) == len(expected["history"])
    for ours, theirs in zip(found[0]["history"], expected["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)
    assert found[0]["weights"] == pytest.approx(expected["weights"], abs=1e-4)
    assert found[0]["biases"] == expected["biases"]


@pytest.mark.parametrize(
    ("name", "alone"),
    [("ddp-moe", "moe"), ("ddp-dense", "dense"), ("ddp-of-three", "moe"), ("ddp-blank", "blank")],
)
def test_processes_with_whole_models_train_the_curve_of_one(name, alone, plain):
    same_curve(plain[name], plain[alone][0])


def test_processes_stop_together_at_the_step_of_one(plain):
    assert [found["stopped_step"] for found in plain["ddp-stopped"]] == [2, 2]
    assert plain["stopped"][0]["stopped_step"] == 2
    same_curve(plain["ddp-stopped"], plain["stopped"][0])


def test_bias_moves_once_a_step_whatever_the_processes(plain):
    for name in ("moe", "ddp-moe", "ddp-of-three", "ddp-blank"):
        biases = torch.tensor(plain[name][0]["biases"])
        moves = biases / 0.001
        torch.testing.assert_close(moves, moves.round(), atol=1e-3, rtol=0)
        assert 0 < moves.abs().max() <= len(plain[name][0]["history"])


def test_processes_that_divide_the_model_train_the_curve_of_one(plain):
    (first, second), alone = plain["fsdp2-moe"], plain["moe"][0]
    assert first["history"] == second["history"]
    second |= {name: first[name] for name in ("weights", "biases")}  # only the first gets it back
    same_curve([first, second], alone)


def test_a_run_goes_on_with_any_number_of_processes_and_any_division(plain):
    assert not any(any(plain[f"killed-{number}"]) for number in (1, 2, 3))
    same_curve(plain["resumed"], plain["moe"][0])


@pytest.mark.parametrize("kind", ["moe", "dense"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_trains_the_curve_of_one(stage, kind, zero):
    first, second = zero[f"zero{stage}-{kind}"]
    assert first["history"] == second["history"]
    same_curve([first], zero[kind][0])


def test_zero_goes_on_from_other_stages(zero):
    assert not any(any(zero[f"killed-{stage}"]) for stage in (1, 2, 3))
    same_curve(zero["resumed"], zero["moe"][0])


def make_batch(width: int) -> Batch:
    ids = torch.ones(1, width, dtype=torch.int64)
    return Batch(ids, ids, torch.arange(1), ids.bool())


@pytest.mark.parametrize("num_batches", [1, 2, 3, 7])
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_micro_batches_are_dealt_once_and_evenly(num_batches, num_processes):
    batches = [make_batch(9 - place) for place in range(num_batches)]
    hands = [
        assign_microbatches_to_rank(batches, index=index, num_processes=num_processes)
        for index in range(num_processes)
    ]
    assert len({len(hand) for hand in hands}) == 1
    counting = [item.place for hand in hands for item in hand if not item.is_padding]
    assert sorted(counting) == list(range(num_batches))
    idle = [item.batch for hand in hands for item in hand if item.is_padding]
    assert all(batch is batches[-1] for batch in idle)


def test_processes_that_cannot_meet_are_refused_with_the_reason(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match=r"recipes/accelerate/cpu\.yaml"):
        open_accelerator()


def train(model, folder, **more):
    objective = NextToken(kind="next_token").build(ObjectiveContext(model))
    return fit(
        model,
        batches=lambda step: [make_batch(6)],
        objective=objective,
        config=TrainingConfig(max_steps=2, save_interval_seconds=0),
        state=folder,
        title="test",
        **more,
    )


def test_weights_in_parts_are_not_changed_between_steps(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "find_sharding", lambda accelerator: "fsdp2")
    with pytest.raises(LaunchError, match=r"run this entry alone, or with .*ddp\.yaml"):
        train(dense, tmp_path, after_step=lambda step: None)


def test_another_models_state_is_refused(dense, moe, tmp_path):
    train(moe, tmp_path)
    with pytest.raises(TrainingError, match=r"training\.pt: the state of another model"):
        train(dense, tmp_path)
