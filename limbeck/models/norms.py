"""Norms by what they compute: whether their weight is a factor, or one is added to it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def is_norm(module: nn.Module) -> bool:
    """Whether a module has one vector of weights and no matrix."""
    parameters = list(module.parameters())
    return "weight" in dict(module.named_parameters(recurse=False)) and all(
        item.dim() == 1 for item in parameters
    )


@torch.no_grad()
def scale_norm(norm: nn.Module, factor: float | Float[Tensor, " width"]) -> bool:
    """Whether a norm's outputs are now so many times as large, by its weight w or by 1 + w.

    It stays as it was where neither makes them so.
    """
    own = dict(norm.named_parameters(recurse=False))
    fresh = {name: item.clone() for name, item in own.items()}
    weight = own["weight"]
    given = torch.randn(4, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    wanted = norm(given).float() * factor
    if "bias" in own:
        own["bias"].mul_(factor)
    for offset in (0.0, 1.0):
        weight.copy_((fresh["weight"] + offset) * factor - offset)
        if torch.allclose(norm(given).float(), wanted, rtol=1e-3, atol=1e-5):
            return True
    for name, item in own.items():
        item.copy_(fresh[name])
    return False
