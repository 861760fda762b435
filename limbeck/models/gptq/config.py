"""Settings of how codes are chosen before training."""

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveInt, PositiveRatio


class Gptq(Config):
    """Choose codes so that the rounding of a column makes up for that of those before (GPTQ)."""

    num_records: PositiveInt = 128
    """Training records on which inputs of the linear layers are measured."""
    damping_ratio: PositiveRatio = 0.01
    """Of the mean square of a layer's inputs, the share that is added to each: more of it keeps
    closer to the nearest codes, where few records say little of inputs that are rare."""
