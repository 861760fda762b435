"""Kept widths are multiples near the share; nothing to cut is an error."""

import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.pruning.allocation import pick_kept
from limbeck.pruning.shapes import count_kept


@pytest.mark.parametrize(
    ("num_groups", "ratio", "multiple", "kept"),
    [
        (320, 0.2, 8, 256),
        (512, 0.2, 8, 408),
        (512, 0.2, 64, 384),
        (10, 0.2, 8, 8),
        (300, 0.2, 256, 256),
        (32, 0.0, 64, 32),
        (8, 0.99, 1, 1),
        (4, 0.9, 1, 1),
        (15, 0.5, 5, 10),
    ],
)
def test_kept_widths(num_groups, ratio, multiple, kept):
    assert count_kept(num_groups, ratio=ratio, multiple=multiple, kind="channels") == kept


@pytest.mark.parametrize("num_groups", range(2, 200, 7))
@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_the_share_is_missed_by_at_most_half_a_multiple(num_groups, multiple):
    try:
        kept = count_kept(num_groups, ratio=0.3, multiple=multiple, kind="channels")
    except CheckpointError:
        assert num_groups * 0.7 / multiple + 0.5 > num_groups // multiple or num_groups <= multiple
        return
    assert kept % multiple == 0
    assert kept == multiple or abs(kept - num_groups * 0.7) <= multiple / 2 + 1e-6


def test_a_share_too_small_to_cut_is_refused():
    with pytest.raises(CheckpointError, match=r"2 heads.*nothing would be cut"):
        count_kept(2, ratio=0.2, multiple=1, kind="heads")
    with pytest.raises(CheckpointError, match="lower the multiple"):
        count_kept(48, ratio=0.2, multiple=64, kind="channels")


def test_the_highest_scores_stay_in_order():
    scores = torch.tensor([0.5, 3.0, 0.0, 3.0, 1.0, 0.0])
    assert pick_kept(scores, num_kept=3) == (1, 3, 4)
    assert pick_kept(scores, num_kept=5) == (0, 1, 2, 3, 4)
