"""INT8 in blocks: each block has its own step, products are those of what the codes stand for."""

import pytest
import torch

from limbeck.quantization.formats import block_rounding
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.layers import (
    FakeQuantizedLinear,
    QuantizedLinear,
    unrounded_activations,
)

INT8 = Int8(kind="int8")
WIDTHS = (1, 5, 16, 31, 32, 33, 50, 96, 200)
"""Less than a block, whole blocks, and blocks with a shorter last one."""


def by_hand(x, *, block):
    """Steps and integers, block by block, in float64."""
    steps, integers = [], []
    for part in x.split(block, dim=-1):
        absmax = part.abs().amax(dim=-1, keepdim=True)
        steps.append(absmax.double() / 127)
        whole = torch.round(part * (torch.full_like(absmax, 127) / absmax)).double()
        integers.append(torch.where(absmax == 0, 0.0, whole))
    return steps, integers


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("outlier", [1.0, 3000.0])
def test_products_are_those_of_integers_scaled_block_by_block(columns, outlier):
    torch.manual_seed(0)
    x, weight = torch.randn(7, columns), torch.randn(11, columns)
    x[:, 0] *= outlier
    x[2], weight[3] = 0, 0
    x_steps, x_integers = by_hand(x, block=32)
    steps, integers = by_hand(weight, block=32)
    expected = sum(
        (left @ right.T) * left_step * right_step.T
        for left, right, left_step, right_step in zip(
            x_integers, integers, x_steps, steps, strict=True
        )
    )
    stored = INT8.quantize(weight)
    found = INT8.multiply(x, weight=stored)
    scale = expected.abs().max()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=float(3e-6 * scale))
    assert torch.equal(found, INT8.fake_multiply(x, weight=weight))
    assert not found[2].any() and not found[:, 3].any()


@pytest.mark.parametrize("columns", WIDTHS)
def test_each_block_has_a_step_of_its_own(columns):
    torch.manual_seed(0)
    weight = torch.randn(6, columns)
    stored = INT8.quantize(weight)
    assert stored.codes.shape == weight.shape and stored.codes.dtype == torch.int8
    assert stored.scale.shape == (6, -(-columns // 32))
    step = stored.scale.repeat_interleave(32, dim=-1)[:, :columns]
    found = INT8.dequantize(stored)
    assert ((found - weight).abs() <= 0.5001 * step).all()
    assert torch.equal(INT8.fake(weight), found)
    again = INT8.quantize(found)
    assert torch.equal(again.codes, stored.codes)


def test_an_outlier_costs_its_own_block_only():
    torch.manual_seed(0)
    x = torch.randn(20, 96)
    x[:, 5] = 3000
    errors = [(INT8.fake(x) - x).abs(), (Int8(kind="int8", block_size="row").fake(x) - x).abs()]
    blocks, row = (error[:, 32:].max() for error in errors)
    assert blocks < 0.02 < 0.5 < row


def test_halves_go_to_the_even_step():
    x = torch.zeros(1, 32)
    x[0, :6] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5])
    assert INT8.quantize(x).codes[0, :6].tolist() == [127, 0, 2, 2, 0, -2]


def test_gradients_pass_straight_through_the_product():
    torch.manual_seed(0)
    x = torch.randn(4, 50, requires_grad=True)
    weight = torch.randn(5, 50, requires_grad=True)
    INT8.fake_multiply(x, weight=weight).square().sum().backward()
    found = x.grad.clone(), weight.grad.clone()
    product = INT8.multiply(x.detach(), weight=INT8.quantize(weight))
    rounded = INT8.fake(x.detach()), INT8.fake(weight.detach())
    expected = 2 * product @ rounded[1], 2 * product.T @ rounded[0]
    torch.testing.assert_close(found, expected)


def test_a_large_matrix_in_parts_is_the_same_product(monkeypatch):
    torch.manual_seed(0)
    x, stored = torch.randn(3, 50), INT8.quantize(torch.randn(41, 50))
    whole = INT8.multiply(x, weight=stored)
    monkeypatch.setattr(block_rounding, "CHUNK_WEIGHTS", 300)
    torch.testing.assert_close(INT8.multiply(x, weight=stored), whole)


def test_activations_are_rounded_except_where_their_cost_is_measured():
    torch.manual_seed(0)
    x, weight = torch.randn(3, 50), torch.randn(4, 50)
    linear = torch.nn.Linear(50, 4, bias=False)
    linear.weight = torch.nn.Parameter(weight)
    for layer in (
        QuantizedLinear(INT8.quantize(weight), number_format=INT8, bias=None),
        FakeQuantizedLinear(linear, number_format=INT8),
    ):
        rounded = layer(x)
        with unrounded_activations(layer):
            torch.testing.assert_close(layer(x), x @ INT8.fake(weight).T)
            assert not torch.equal(layer(x), rounded)
        assert torch.equal(layer(x), rounded)
