"""What a plan takes for granted: cards, sizes to reach, and data that is not there yet.

A recipe states it under the key `plan`; nothing but a plan reads it.
"""

from collections.abc import Mapping

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveFloat, PositiveInt
from limbeck.sizing.cards import Cards, Serving


class Assumptions(Config):
    """What a plan is made for; the cards and sizes are the reference description's own."""

    training: Cards = Cards(gpu="A100-40GB", count=2)
    """Cards that train."""
    inference: Serving = Serving(gpu="T4-16GB")
    """Cards that answer."""
    size_targets_bytes: Mapping[str, PositiveInt] = {
        "edge": 1_800_000_000,
        "mobile": 500_000_000,
    }
    """Most bytes of a deployed model, by the name of its tier."""
    vocab: PositiveInt = 2000
    """Tokens of a corpus that is not made yet."""
    record_tokens: PositiveFloat = 40.0
    """Tokens of a record, padding included, of a corpus that is not made yet."""
