"""Scores rank groups; zero groups score zero; unknown names are refused with the nearest one."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import CRITERIA
from limbeck.models.batch import pad_rows
from limbeck.models.forward import KeptForward
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.calibration import Calibration, calibrate
from limbeck.pruning.config import CriterionName, ExpertCriterionName
from limbeck.pruning.criteria import (
    L1,
    Contribution,
    GroupL2,
    MeanAbs,
    NormProduct,
    RandomScores,
    Taylor,
    score_groups,
)

NOTHING = Calibration()


def test_scores_are_what_their_names_state():
    parts = [torch.tensor([[3.0, -4.0], [0.0, 1.0]]), torch.tensor([[12.0], [2.0]])]
    for criterion, expected in (
        (L1(), [19, 3]),
        (GroupL2(), [13, 5**0.5]),
        (NormProduct(), [60, 2]),
    ):
        found = criterion.score(parts, calibration=NOTHING)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_activations_are_weighed_by_their_columns():
    parts = [torch.ones(2, 3), torch.tensor([[3.0, 4.0], [1.0, 0.0]])]
    measured = Calibration(
        mean_abs=torch.tensor([[2.0], [5.0]]), mean_square=torch.tensor([[4.0], [36.0]])
    )
    found = Contribution().score(parts, calibration=measured)
    torch.testing.assert_close(found, torch.tensor([2 * 5.0, 6 * 1.0]))
    found = MeanAbs().score(parts, calibration=measured)
    torch.testing.assert_close(found, torch.tensor([2.0, 5.0]))


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "reap"])
def test_a_zero_group_scores_zero_and_others_do_not(name, dense):
    criterion = resolve(CRITERIA, name, what="criterion")()
    batch = pad_rows([np.arange(3, 9)], starts=[0], pad=0, record_ids=[0])
    for groups in (find_channels(dense)[0], find_heads(dense)[1]):
        with torch.no_grad():
            for piece in groups.slices(0):
                dense.get_parameter(piece.parameter).narrow(
                    piece.axis, piece.start, piece.stop - piece.start
                ).zero_()
        measured = calibrate(dense, layers=[groups], batches=[batch], needs=criterion.needs)
        scores = score_groups(
            dense, groups=groups, criterion=criterion, calibration=measured[groups]
        )
        assert scores.shape == (groups.num_groups,)
        assert scores[0] == 0
        assert bool((scores[1:] > 0).all())


def test_norm_product_ignores_where_the_scale_is():
    parts = [torch.rand(5, 3), torch.rand(5, 3), torch.rand(5, 4)]
    moved = [parts[0], parts[1] * 4, parts[2] / 4]
    found, expected = (NormProduct().score(item, calibration=NOTHING) for item in (moved, parts))
    torch.testing.assert_close(found, expected)


def test_an_unknown_criterion_names_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'group_l2'"):
        TypeAdapter(CriterionName).validate_python("group_l1")


def test_a_criterion_for_something_else_is_refused():
    with pytest.raises(ValidationError, match="'reap' scores experts, not channels and heads"):
        TypeAdapter(CriterionName).validate_python("reap")
    with pytest.raises(ValidationError, match="use one of l1, group_l2, reap, random"):
        TypeAdapter(ExpertCriterionName).validate_python("contribution")


def test_gradients_are_those_of_the_summed_loss(dense):
    rows = [np.array([3, 4, 5, 6]), np.array([7, 8])]
    batch = pad_rows(rows, starts=[0, 0], pad=0, record_ids=[0, 1])
    layers = find_channels(dense)
    found = calibrate(dense, layers=layers, batches=[batch, batch], needs="gradients")
    logits = KeptForward(dense)(batch).logits
    (2 * torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum")).backward()
    for groups in layers:
        down = dense.get_parameter(groups.parts[-1].parameter).grad
        torch.testing.assert_close(found[groups].gradients[-1], down.T)


def test_taylor_is_what_a_gate_on_each_group_would_change(dense):
    """The gates' gradients by another way: a factor on each channel, token by token."""
    rows = [np.array([3, 4, 5, 6]), np.array([7, 8])]
    batch = pad_rows(rows, starts=[0, 0], pad=0, record_ids=[0, 1])
    dense = dense.double()
    (groups,) = (item for item in find_channels(dense) if item.layer == 1)
    gates = torch.ones(2, 4, groups.num_groups, dtype=torch.float64, requires_grad=True)
    down = dense.model.layers[1].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda _, inputs: (inputs[0] * gates,))
    logits = KeptForward(dense)(batch).logits
    torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum").backward()
    handle.remove()
    expected = (gates.grad[batch.tokens].square().sum(dim=0) / 6).sqrt().float()
    found = calibrate(dense, layers=[groups], batches=[batch], needs="loss_changes")
    scores = score_groups(dense, groups=groups, criterion=Taylor(), calibration=found[groups])
    torch.testing.assert_close(scores, expected)


def test_random_differs_by_layer_and_seed_only(dense):
    first, second = find_channels(dense)
    drawn = [
        score_groups(dense, groups=groups, criterion=RandomScores(seed=seed), calibration=NOTHING)
        for groups, seed in ((first, 0), (first, 0), (first, 1), (second, 0))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not any(torch.allclose(drawn[0], other) for other in drawn[2:])
