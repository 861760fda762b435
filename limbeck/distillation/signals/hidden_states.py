"""Hidden states as arrays of a shard: float16, or int8 with a scale for each position."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.contracts.errors import ArtifactError
from limbeck.distillation.signals.config import ArrayLayout, Arrays, HiddenPrecision


def hidden_layout(*, num_layers: int, hidden: int, precision: HiddenPrecision) -> ArrayLayout:
    """The arrays of so many layers."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    for place in range(num_layers):
        if precision == "int8":
            layout[f"hidden{place}"] = ("|i1", (hidden,))
            layout[f"hidden{place}_scale"] = ("<f4", ())
        else:
            layout[f"hidden{place}"] = ("<f2", (hidden,))
    return layout


def store_hidden(
    hidden: Sequence[Float[Tensor, "kept hidden"]], *, precision: HiddenPrecision
) -> dict[str, np.ndarray]:
    """Arrays of hidden states; int8 has a scale for each position.

    Raises:
        ArtifactError: a state is not finite, or too large for float16.
    """
    arrays = {}
    for place, states in enumerate(hidden):
        name = f"hidden{place}"
        if precision == "int8":
            scale = states.float().abs().amax(dim=-1).clamp(min=1e-30) / 127
            stored = (states.float() / scale[:, None]).round().to(torch.int8)
            arrays[f"{name}_scale"] = scale.cpu().numpy()
        else:
            scale = stored = states.half()
        if not bool(torch.isfinite(scale).all()):
            raise ArtifactError(
                f"hidden states number {place + 1} are not finite in {precision}; expected finite "
                "ones: set `hidden_precision: int8`, leave that layer out, or mend the teacher"
            )
        arrays[name] = stored.cpu().numpy()
    return arrays


def read_hidden(arrays: Arrays, place: int) -> Float[Tensor, "kept hidden"]:
    """The hidden states that were stored at a place, counted from 0."""
    found = torch.from_numpy(arrays[f"hidden{place}"])
    scale = arrays.get(f"hidden{place}_scale")
    return found if scale is None else found.float() * torch.from_numpy(scale)[:, None]
