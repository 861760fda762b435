"""Windows and rotary positions of a decoder, as GGUF files state them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # it imports torch
    from limbeck.runtimes.architecture import Architecture, Rotary

NEAR = 1e-5
"""Relative difference of frequencies that float32 leaves where they are meant to be equal."""


def find_window(architecture: "Architecture") -> int | None:
    """Tokens that the layers with a window see; None: no layer has one that hides anything."""
    found = {layer.window for layer in architecture.layers if layer.window is not None}
    return next((item for item in found if item < architecture.max_tokens), None)


def find_period(architecture: "Architecture") -> int | None:
    """n where each n-th layer sees all tokens and the others have a window; None: otherwise.

    1 where no layer has a window, 0 where every layer has one.
    """
    has_window = [layer.window is not None for layer in architecture.layers]
    if all(has_window):
        return 0
    period = has_window.index(False) + 1
    expected = [place % period < period - 1 for place in range(len(has_window))]
    return period if has_window == expected else None


def find_factors(rotary: "Rotary") -> Float[np.ndarray, " pairs"]:
    """By what each pair turns slower than its base says."""
    turned = 2 * len(rotary.frequencies)
    exponents = np.arange(0, turned, 2, dtype=np.float32) / np.float32(turned)
    plain = np.float32(1.0) / np.float32(rotary.theta) ** exponents
    return (plain / rotary.frequencies).astype(np.float32)


def find_factor(rotary: "Rotary") -> float | None:
    """The factor of all pairs; None where each has one of its own."""
    factors = find_factors(rotary)
    mean = float(np.round(factors.mean(dtype=np.float64), 4))
    return mean if np.allclose(factors, mean, rtol=NEAR) else None
