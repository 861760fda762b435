"""Norms are scaled in each channel, whichever way their weight counts."""

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from limbeck.models.norms import scale_norm

WIDTH = 8


@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm, Gemma3RMSNorm])
@pytest.mark.parametrize("factor", [0.5, torch.linspace(0.1, 3, WIDTH)])
def test_outputs_are_so_many_times_as_large(kind, factor):
    norm, given = kind(WIDTH), torch.randn(5, WIDTH)
    for item in norm.parameters():
        nn.init.uniform_(item, 0.2, 2)
    expected = norm(given) * factor
    assert scale_norm(norm, factor)
    torch.testing.assert_close(norm(given), expected)


def test_a_norm_of_neither_kind_stays_as_it_is():
    class Odd(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x) + self.weight.square()

    norm, given = Odd(WIDTH), torch.randn(5, WIDTH)
    expected = norm(given)
    assert not scale_norm(norm, 2.0)
    assert torch.equal(norm(given), expected)
