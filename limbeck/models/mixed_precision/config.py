"""Settings of which layers get more bits."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from limbeck.contracts.config import Choice, Config
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.registry import FORMATS
from limbeck.quantization.formats.base import QuantizedFormat


class MixedPrecision(Config):
    """Give the layers that rounding costs most a format of more bits, as far as the bytes go."""

    max_bytes: PositiveInt
    """Of all weights in the checkpoint, with scales, embeddings and norms."""
    formats: Annotated[
        Sequence[Annotated[QuantizedFormat, Choice(FORMATS, what="scheme")]], Field(min_length=1)
    ]
    """Schemes that a layer may get instead, such as `{kind: int8}`."""

    @model_validator(mode="after")
    def _check_formats(self) -> "MixedPrecision":
        for number, item in enumerate(self.formats):
            item.check_for_layers(f"formats[{number}]")
        return self
