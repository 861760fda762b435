"""Scores rank groups; zero groups score zero; unknown names are refused with the nearest one."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import CRITERIA
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.criteria import CriterionName, group_l2, l1, norm_product, score_groups


def test_scores_are_what_their_names_say():
    parts = [torch.tensor([[3.0, -4.0], [0.0, 1.0]]), torch.tensor([[12.0], [2.0]])]
    torch.testing.assert_close(l1(parts), torch.tensor([19.0, 3.0]))
    torch.testing.assert_close(group_l2(parts), torch.tensor([13.0, 5.0**0.5]))
    torch.testing.assert_close(norm_product(parts), torch.tensor([60.0, 2.0]))


@pytest.mark.parametrize("name", CRITERIA)
def test_a_zero_group_scores_zero_and_others_do_not(name, dense):
    score = resolve(CRITERIA, name, what="criterion")
    for groups in (find_channels(dense)[0], find_heads(dense)[1]):
        with torch.no_grad():
            for piece in groups.slices(0):
                dense.get_parameter(piece.parameter).narrow(
                    piece.axis, piece.start, piece.stop - piece.start
                ).zero_()
        scores = score_groups(dense, groups=groups, score=score)
        assert scores.shape == (groups.num_groups,)
        assert scores[0] == 0
        assert bool((scores[1:] > 0).all())


def test_norm_product_ignores_where_the_scale_is():
    parts = [torch.rand(5, 3), torch.rand(5, 3), torch.rand(5, 4)]
    moved = [parts[0], parts[1] * 4, parts[2] / 4]
    torch.testing.assert_close(norm_product(moved), norm_product(parts))


def test_an_unknown_criterion_names_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'group_l2'"):
        TypeAdapter(CriterionName).validate_python("group_l1")
