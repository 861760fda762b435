"""What a tier costs: its price, as a recipe sets it, and pure arithmetic with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeFloat

MILLION = 1e6
CostType = Literal["input", "output", "hours"]


class PriceConfig(Config):
    """What a tier costs; without a currency nothing is known of it, and no money is shown."""

    currency: Annotated[str, Field(pattern=r"^([A-Z]{3})?$")] = ""
    """By ISO 4217, such as `CNY`. With a currency and no amounts, the tier costs nothing."""
    per_million_input_tokens: NonNegativeFloat = 0.0
    """Of tokens that it reads."""
    per_million_output_tokens: NonNegativeFloat = 0.0
    """Of tokens that it writes."""
    per_hour: NonNegativeFloat = 0.0
    """Of the machine that it is on, whether it answers or not."""

    @property
    def is_known(self) -> bool:
        """Whether there is one."""
        return bool(self.currency)

    @model_validator(mode="after")
    def _check_currency(self) -> "PriceConfig":
        if not self.currency and max(
            self.per_million_input_tokens, self.per_million_output_tokens, self.per_hour
        ):
            raise ValueError("a price without its currency; add one, such as currency: CNY")
        return self


@dataclass(frozen=True)
class TierUse:
    """What a tier was used for."""

    num_input_tokens: int
    num_output_tokens: int
    hours: float


def compute_cost(price: PriceConfig, use: TierUse) -> Mapping[CostType, float]:
    """The money, in the currency of the price."""
    return {
        "input": price.per_million_input_tokens * use.num_input_tokens / MILLION,
        "output": price.per_million_output_tokens * use.num_output_tokens / MILLION,
        "hours": price.per_hour * use.hours,
    }
