"""Codes that GPTQ chooses lose no more than the nearest ones, and round to themselves."""

import pytest
import torch

from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.quantization.gptq import choose_codes, factor_inverse, order_columns

FORMATS = (
    Int4(kind="int4"),
    Int4(kind="int4", block_size=128),
    Int2(kind="int2"),
    Ternary(kind="ternary", scale="least_squares", block_size=64),
)
COLUMNS = 150
DEAD = 7


@pytest.fixture
def weight():
    found = torch.randn(24, COLUMNS, generator=torch.Generator().manual_seed(1))
    found[3, 32:64] = 0
    return found


@pytest.fixture
def hessian():
    """Of inputs that lie near a plane, one column of which is never used."""
    seeded = torch.Generator().manual_seed(2)
    inputs = torch.randn(400, 20, generator=seeded) @ torch.randn(20, COLUMNS, generator=seeded)
    inputs = inputs + 0.5 * torch.randn(400, COLUMNS, generator=seeded)
    inputs[:, DEAD] = 0
    return (inputs.T @ inputs).double() / len(inputs)


def lost(weight, rounded, hessian):
    difference = (rounded - weight).double()
    return ((difference @ hessian) * difference).sum(dim=1)


@pytest.mark.parametrize("number_format", FORMATS, ids=lambda item: f"{item.kind} {item.block}")
def test_no_row_loses_more_than_with_the_nearest_codes(number_format, weight, hessian):
    found = choose_codes(weight, hessian=hessian, number_format=number_format, damping_ratio=0.01)
    chosen = lost(weight, found.weight, hessian)
    nearest = lost(weight, number_format.fake(weight), hessian)
    assert (chosen <= nearest * (1 + 1e-4)).all()
    assert chosen.sum() < 0.5 * nearest.sum()
    assert found.error == pytest.approx(float(chosen.sum()), rel=1e-3)
    assert found.nearest_error == pytest.approx(float(nearest.sum()), rel=1e-3)


@pytest.mark.parametrize("number_format", FORMATS, ids=lambda item: f"{item.kind} {item.block}")
def test_chosen_codes_round_to_themselves_bit_for_bit(number_format, weight, hessian):
    """In almost every row: nothing is chosen where a row's codes would not stay."""
    found = choose_codes(weight, hessian=hessian, number_format=number_format, damping_ratio=0.01)
    stored = number_format.quantize(found.weight)
    assert torch.equal(number_format.dequantize(stored), found.weight)
    assert torch.equal(number_format.quantize(number_format.dequantize(stored)).codes, stored.codes)
    is_chosen = (found.weight != number_format.fake(weight)).any(dim=1)
    assert is_chosen.all()
    again = choose_codes(weight, hessian=hessian, number_format=number_format, damping_ratio=0.01)
    assert torch.equal(again.weight, found.weight)


def test_columns_that_no_input_uses_get_their_nearest_codes(weight):
    int4 = FORMATS[0]
    nothing = torch.zeros(COLUMNS, COLUMNS, dtype=torch.float64)
    found = choose_codes(weight, hessian=nothing, number_format=int4, damping_ratio=0.01)
    assert torch.equal(found.weight, int4.fake(weight))
    # Inputs that are independent leave nothing to make up for: only steps may differ.
    alone = torch.eye(COLUMNS, dtype=torch.float64)
    alone[DEAD, DEAD] = 0
    found = choose_codes(weight, hessian=alone, number_format=int4, damping_ratio=0.01)
    others = [column for column in range(32) if column != DEAD]
    torch.testing.assert_close(found.weight[:, 32:], int4.fake(weight)[:, 32:])
    assert (found.weight - weight)[:, others].abs().max() < 1
    assert (found.weight[:, DEAD] - weight[:, DEAD]).abs().max() < 1


def test_the_factor_is_that_of_the_inverse(hessian):
    damping = 0.05 * hessian.diagonal().sum() / (COLUMNS - 1)
    damped = hessian + damping * torch.eye(COLUMNS, dtype=torch.float64)
    expected = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(factor_inverse(hessian, damping_ratio=0.05), expected)


def test_columns_keep_their_blocks():
    used = torch.tensor([1.0, 3.0, 2.0, 9.0, 0.0, 8.0])
    assert order_columns(used, block=3).tolist() == [3, 5, 4, 1, 2, 0]


def test_a_format_that_scales_by_the_mean_has_no_grid_to_choose_on():
    assert not Ternary(kind="ternary").keeps_grid and not Int8(kind="int8").keeps_grid
    with pytest.raises(NotImplementedError, match="nearest"):
        Int8(kind="int8").find_grids(torch.ones(1, 32))
