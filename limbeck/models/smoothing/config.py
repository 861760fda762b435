"""Settings of what is done to a float model before it is rounded."""

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveInt, Ratio


class Smoothing(Config):
    """Even channels out before rounding: exact in floats, at no cost afterwards (SmoothQuant)."""

    migration_strength: Ratio = 0.5
    """How much of the unevenness goes from activations into weights: 0 evens the weights out, 1 the
    activations."""
    num_records: PositiveInt = 64
    """Training records on which activations are measured."""
