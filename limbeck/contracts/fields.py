"""Types of configuration fields: pydantic's bounded numbers, and those that it lacks."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]
RatioBelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveRatio = Annotated[float, Field(gt=0, le=1)]
InnerRatio = Annotated[float, Field(gt=0, lt=1)]
"""Neither 0 nor 1."""
Precision = Literal["float32", "bfloat16"]
"""In what a model computes."""

__all__ = [
    "InnerRatio",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "PositiveRatio",
    "Precision",
    "Ratio",
    "RatioBelowOne",
    "Text",
    "Texts",
]
