"""Which width of the feed-forward layers brings a cut model under a budget.

Left out: which kinds of groups should go, and how long an answer takes: `limbeck plan --target`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import model_validator

from limbeck.contracts.config import Config, NameIn
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import PositiveFloat, PositiveInt
from limbeck.contracts.registry import FORMATS
from limbeck.models.config import GroupKind
from limbeck.models.decoder_sizes import SizedConfig
from limbeck.pruning.shapes import count_groups, describe_cut


class Budget(Config):
    """What the cut model has at most: no more feed-forward channels go than that takes."""

    unit: Literal["parameters", "bytes", "flops"]
    """All parameters; bytes of the weights in `number_format`; arithmetic of a forward pass for a
    token that attends to `context_tokens`."""
    at_most: PositiveFloat
    number_format: Annotated[str, NameIn(FORMATS, "format")] = "float32"
    """Of the bytes, embeddings included."""
    context_tokens: PositiveInt = 512
    """Of the arithmetic."""

    @model_validator(mode="after")
    def _check(self) -> "Budget":
        for field, unit in (("number_format", "bytes"), ("context_tokens", "flops")):
            if field in self.model_fields_set and self.unit != unit:
                raise ValueError(f"{field} belongs to `unit: {unit}`; remove it or change the unit")
        return self

    def measure(self, config: SizedConfig) -> float:
        """What a model of this config has of the unit."""
        from limbeck.sizing.parameters import size_model  # noqa: PLC0415  (slow)

        size = size_model(config, context_tokens=self.context_tokens)
        if self.unit == "parameters":
            return float(size.parameters)
        if self.unit == "flops":
            return float(size.forward_flops)
        (found,) = (item for item in size.formats if item.name == self.number_format)
        return float(found.total_bytes)


def fit_channels(
    config: SizedConfig, *, budget: Budget, multiple: int, num_kept: Mapping[GroupKind, int]
) -> int:
    """The most channels of each layer, a multiple, with which a model keeps to the budget.

    `num_kept` says what stays of the other kinds.

    Raises:
        CheckpointError: it cannot, or has no channels.
    """
    num = count_groups(config.get_text_config())["channels"]
    if not num:
        raise CheckpointError(
            f"a model of type {config.model_type!r} has no dense feed-forward width to cut; give "
            "shares in place of a budget"
        )
    if multiple >= num:
        raise CheckpointError(
            f"a layer has {num} channels, which has no smaller multiple of {multiple}; lower "
            "the multiple"
        )

    def measure(channels: int) -> float:
        kept: dict[GroupKind, int] = {**num_kept, "channels": channels}
        return budget.measure(describe_cut(config, num_kept=kept))

    whole, least = measure(num), measure(multiple)
    if whole <= budget.at_most:
        return num
    if least > budget.at_most:
        raise CheckpointError(
            f"even with {multiple} of {num} channels a layer the model has {least:,.0f} "
            f"{budget.unit}, and at most {budget.at_most:,.0f} are allowed; cut heads, layers or "
            "width as well"
        )
    slope = (whole - least) / (num - multiple)
    guess = multiple + (budget.at_most - least) / slope
    found = int(guess) // multiple * multiple
    # The guess is exact but for the blocks of number formats, which make steps.
    while measure(found) > budget.at_most:
        found -= multiple
    while measure(found + multiple) <= budget.at_most:
        found += multiple
    return found
