"""A number format: the one description that training, storing, loading and sizing read.

`Format` says how many bits a model's weights take and how far a copy in it may differ;
`QuantizedFormat` adds the arithmetic. Which modules are replaced, and what a folder holds, is the
same for every format: `limbeck.quantization.qat` and `limbeck.quantization.storage`.
"""

import abc
import fnmatch
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import model_validator

from limbeck.contracts.config import Choice, Config, resolve
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.parity import Tolerance
from limbeck.contracts.registry import FORMATS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.quantization.formats.grids import Grids
    from limbeck.quantization.formats.tensors import QuantizedTensor


class Format(Config, abc.ABC):
    """How the matrices of a model are stored; below 16 bits, norms, biases and gates are float32.

    The class attributes describe every model in the format, the fields one model.
    """

    kind: str
    """A name of `limbeck list formats`."""
    bits: ClassVar[float]
    """Of one weight, without its share of a scale."""
    scale_bits: ClassVar[int] = 0
    """Of one scale; 0 where nothing is scaled."""
    tolerance: ClassVar[Tolerance]
    """How far a bundle may differ from its checkpoint in this format."""

    @property
    @abc.abstractmethod
    def block(self) -> int | None:
        """Weights of a row that share a scale; None is the whole row."""

    @property
    @abc.abstractmethod
    def embedding_format(self) -> str:
        """The format of embeddings and language head: mostly the same."""

    @classmethod
    @abc.abstractmethod
    def matches(cls, config: JsonMapping) -> bool:
        """Whether a model's `config.json` says that its weights are stored in this format."""

    def num_bits(self, *, rows: int, columns: int) -> float:
        """Bits of a matrix with its scales."""
        blocks = math.ceil(columns / self.block) if self.block else 1
        return float(rows * (columns * self.bits + blocks * self.scale_bits))


class QuantizedFormat(Format, abc.ABC):
    """A format that models are trained for, and stored in, as codes and scales."""

    codes_dtype: ClassVar[str] = "int8"
    """Of stored codes, by which a reader tells a matrix of one format from one of another."""
    smooths_by_default: ClassVar[bool] = False
    """Whether channels are evened out before training where a recipe does not say."""
    chooses_codes_by_default: ClassVar[bool] = False
    """Whether codes are chosen by GPTQ before training where a recipe does not say."""
    layers: Mapping[str, Annotated["QuantizedFormat", Choice(FORMATS, what="scheme")]] = {}
    """Linear layers that get another format (mixed precision): patterns of their names, such as
    `"*.down_proj"` or `re:` and a regular expression, with the scheme of each; the first that fits
    counts. Not for embeddings and language head."""

    @model_validator(mode="after")
    def _check_layers(self) -> "QuantizedFormat":
        for pattern, item in self.layers.items():
            if not _is_pattern(pattern):
                raise ValueError(f"layers[{pattern!r}]: is no regular expression behind `re:`")
            item.check_for_layers(f"layers[{pattern!r}]")
        return self

    def check_for_layers(self, place: str) -> None:
        """Accept a scheme of some layers alone.

        Raises:
            ValueError: it says something of a whole model.
        """
        if stated := self.model_fields_set & {"embeddings", "layers"}:
            raise ValueError(
                f"{place}.{min(stated)}: belongs to the whole model's scheme, not to that of some "
                "layers; remove it"
            )

    def for_layer(self, name: str) -> "QuantizedFormat":
        """The format of a linear layer, by its name in the model; `table` is the head's."""
        for pattern, item in self.layers.items():
            if is_named(name, pattern):
                return item
        return self

    def list_used(self) -> "Iterator[QuantizedFormat]":
        """This one and those of `layers`."""
        yield self
        yield from self.layers.values()

    @property
    def table(self) -> "QuantizedFormat":
        """The format of embeddings and language head, where they are codes: mostly this one."""
        return self

    def num_codes(self, columns: int) -> int:
        """Stored numbers of a row of so many weights: fewer where a byte holds several."""
        return columns

    @property
    def keeps_grid(self) -> bool:
        """Whether numbers on a grid of `find_grids` round to themselves, with the same step."""
        return False

    def find_grids(self, block: "Float[Tensor, 'rows columns']") -> "Grids":
        """The grids on which the codes of a block of each row may be chosen, of such formats."""
        raise NotImplementedError(f"{self.kind}: its codes are always the nearest")

    @abc.abstractmethod
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        """The nearest codes of each row, and its scales."""

    @abc.abstractmethod
    def dequantize(self, stored: "QuantizedTensor") -> "Float[Tensor, '*rows columns']":
        """The weights that codes and scales stand for, in float32."""

    @abc.abstractmethod
    def fake(self, weight: "Float[Tensor, '*rows columns']") -> "Float[Tensor, '*rows columns']":
        """What the codes would stand for; the gradient is that of the weight itself.

        The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432).
        """

    @abc.abstractmethod
    def multiply(
        self, x: "Float[Tensor, 'rows columns']", *, weight: "QuantizedTensor"
    ) -> "Float[Tensor, 'rows out']":
        """x @ weight.T as a stored model computes it."""

    @abc.abstractmethod
    def fake_multiply(
        self, x: "Float[Tensor, '*rows columns']", *, weight: "Float[Tensor, 'out columns']"
    ) -> "Float[Tensor, '*rows out']":
        """The same product of unrounded weights, with gradients for both."""

    @abc.abstractmethod
    def describe(self) -> JsonObject:
        """The `quantization_config` of a checkpoint in this format, without `layers`.

        Readers of checkpoints look at `quant_method`, at `ignore` (patterns of modules that stay
        floats), and at `embeddings` ("float32" where embeddings stay floats).
        """

    def describe_whole(self) -> JsonObject:
        """The same with the descriptions of `layers`, where there are any."""
        others = {pattern: item.describe() for pattern, item in self.layers.items()}
        return {**self.describe(), **({"layers": others} if others else {})}

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: JsonMapping) -> "QuantizedFormat":
        """The format that a matching `config.json` describes, without `layers`.

        Raises:
            CheckpointError: what it says makes no sense.
        """


def list_formats() -> dict[str, Format]:
    """Every format of the table with its default fields, most precise first."""
    found = [
        resolve(FORMATS, name, what="format").model_validate({"kind": name}) for name in FORMATS
    ]
    # Of a long row, so that scales of blocks count.
    found.sort(key=lambda item: -item.num_bits(rows=1, columns=1 << 20))
    return {item.kind: item for item in found}


def find_quantized(config: JsonMapping) -> QuantizedFormat | None:
    """The format that a model's `config.json` describes, where it is one of the table.

    Raises:
        CheckpointError: the description makes no sense.
    """
    if not config.get("quantization_config"):
        return None
    for name in FORMATS:
        found = resolve(FORMATS, name, what="format")
        if issubclass(found, QuantizedFormat) and found.matches(config):
            layers = _read_layers(config["quantization_config"].get("layers", {}))
            return found.from_config(config).model_copy(update={"layers": layers})
    return None


def _read_layers(described: object) -> dict[str, QuantizedFormat]:
    """The formats of `quantization_config.layers`."""
    found = {}
    for pattern, item in described.items() if isinstance(described, Mapping) else [("", None)]:
        is_mapping = isinstance(item, Mapping)
        number_format = find_quantized({"quantization_config": item}) if is_mapping else None
        if number_format is None or number_format.layers or not _is_pattern(pattern):
            raise CheckpointError(
                "config.json: quantization_config.layers has to give each pattern of names the "
                f"description of a format; found {pattern!r}: {item!r}"
            )
        found[pattern] = number_format
    return found


def _is_pattern(text: str) -> bool:
    try:
        is_named("", text)
    except re.error:
        return False
    return True


def is_named(name: str, pattern: str) -> bool:
    """Whether a pattern means a module: one with `*`, or `re:` and a regular expression."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return fnmatch.fnmatchcase(name, pattern)
