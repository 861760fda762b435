"""Settings of a corpus's tokenizer."""

from typing import Literal

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeInt, PositiveInt


class TokenizerConfig(Config):
    """A tokenizer trained on the corpus."""

    kind: Literal["characters"] = "characters"
    num_merges: NonNegativeInt = 200
    """Most merges among Latin letters and digits; Chinese characters never merge."""
    min_count: PositiveInt = 2
    """Rarer characters are written as bytes."""
