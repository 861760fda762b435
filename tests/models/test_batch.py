"""What a batch tells of itself."""

import numpy as np
import torch

from limbeck.models.batch import count_kept, pack_rows, pad_rows

ROWS = [np.array([5, 6, 7, 8]), np.array([9, 10]), np.array([11, 12, 13])]


def test_targets_are_the_labels_that_follow_kept_positions():
    batch = pad_rows(ROWS, starts=[2, 0, 1], pad=0, record_ids=[4, 1, 2])
    assert batch.kept.tolist() == [
        [False, True, True, False],
        [True, False, False, False],
        [True, True, False, False],
    ]
    assert batch.targets.tolist() == [7, 8, 10, 12, 13]
    assert count_kept(batch).tolist() == [2, 1, 2]


def test_a_packed_row_keeps_no_position_that_ends_a_record():
    batch = pack_rows(ROWS, starts=[2, 0, 1], pad=0, record_ids=[[4, 1], [2]])
    assert batch.kept.tolist() == [
        [False, True, True, False, True, False],
        [True, True, False, False, False, False],
    ]
    assert batch.targets.tolist() == [7, 8, 10, 12, 13]
    assert count_kept(batch).tolist() == [2, 1, 2]
    assert torch.equal(batch.record_ids, torch.tensor([4, 1, 2]))
