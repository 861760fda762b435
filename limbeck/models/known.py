"""Models and tokenizers as they are known before anything runs: from their configs, never weights.

A stage states beside its settings what it refuses of them (`ChecksInputs`), with the very functions
that refuse while it runs. Left out: which entry of a recipe starts from which model.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from limbeck.contracts.errors import CheckpointError, LimbeckError
from limbeck.contracts.fields import Precision
from limbeck.models.config import Ability, ModelConfig
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.quantization.formats.base import QuantizedFormat

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class Refusal(NamedTuple):
    """Why a stage cannot run, and which of its fields names the cause."""

    field: str
    message: str


@dataclass(frozen=True, eq=False)
class KnownTokenizer:
    """A tokenizer in a folder, or one that an entry will train."""

    name: str
    """The folder, or the entry."""
    folder: Path | None
    """None where an entry will train it."""

    @cached_property
    def loaded(self) -> "PreTrainedTokenizerBase":
        """The tokenizer in the folder.

        Raises:
            CheckpointError: it cannot be used.
        """
        from limbeck.models.tokenizers import load_tokenizer  # noqa: PLC0415  (torch)

        assert self.folder is not None
        return load_tokenizer(self.folder)

    def find_difference(self, other: "KnownTokenizer") -> str:
        """What tells two tokenizers apart; '' where nothing does."""
        if self.folder is None or other.folder is None:
            if self.folder is other.folder and self.name == other.name:
                return ""
            new, named = (self, other) if self.folder is None else (other, self)
            return f"{new.name!r} trains one of its own, {named.name} is another"
        if self.folder == other.folder:
            return ""
        from limbeck.models.tokenizer_identity import identify  # noqa: PLC0415  (torch)

        return identify(self.loaded).find_difference(identify(other.loaded))


ConfigChange = Callable[["PreTrainedConfig"], "PreTrainedConfig"]


@dataclass(frozen=True, eq=False)
class KnownModel:
    """A model that a recipe describes, names or will make."""

    name: str
    """How messages call it: its entry, or its folder."""
    tokenizer: KnownTokenizer | None
    read: "Callable[[], PreTrainedConfig]"
    """Its config as it starts."""
    read_sizes: Callable[[], DecoderSizes] | None = None
    """What sizing reads of `config`, changes included, where it is known without transformers."""
    description: ModelConfig | None = None
    """Of a model that starts from fresh weights."""
    folder: Path | None = None
    """Where its weights are, of one that is there already."""
    changes: tuple[ConfigChange, ...] = ()
    """What entries have made of it since."""
    codes: QuantizedFormat | None = None
    """The number format that its weights are stored in; None for floats."""
    is_bundle: bool = False
    """Whether it is written for a runtime, which computes as it was exported."""

    @property
    def number_format(self) -> str:
        """The name of that format; floats of all widths count as float32."""
        return "float32" if self.codes is None else self.codes.kind

    @cached_property
    def config(self) -> "PreTrainedConfig":
        """Its config.

        Raises:
            CheckpointError: it cannot be read, or a stage cannot change the model so.
        """
        config = self.read()
        for change in self.changes:
            config = change(config)
        return config

    @cached_property
    def sizes(self) -> SizedConfig:
        """What sizing reads: of a described decoder without transformers, else its config.

        Raises:
            CheckpointError: as `config`.
        """
        return self.config if self.read_sizes is None else self.read_sizes()

    @cached_property
    def layers(self) -> "PreTrainedModel":
        """The model without its weights, on torch's meta device.

        Raises:
            CheckpointError: transformers cannot build it.
        """
        from limbeck.models.checkpoints import build_without_weights  # noqa: PLC0415  (torch)

        return build_without_weights(self.config)

    def check_floats(self) -> None:
        """Refuse a model of codes where numbers are trained.

        Raises:
            CheckpointError: it is quantised.
        """
        if self.number_format != "float32":
            raise codes_cannot_be_trained(self.name, self.number_format)

    def check_precision(self, precision: Precision) -> None:
        """Refuse what computes in one precision only.

        Raises:
            CheckpointError: it is a bundle or quantised, and another one is wanted.
        """
        if precision != "float32" and (self.is_bundle or self.codes is not None):
            raise computes_as_made(self.name, precision)

    def is_able(self, ability: Ability) -> bool:
        """Whether its description alone says that it is fit for something."""
        return self.description is not None and ability in self.description.abilities

    @property
    def num_layers(self) -> int:
        """Of the decoder."""
        if self.description is not None:
            return self.description.text_decoder.num_hidden_layers
        return self.config.get_text_config().num_hidden_layers

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence that it is made for; None where its config does not say."""
        if self.description is not None:
            return self.description.text_decoder.max_position_embeddings
        found = self.config.get_text_config().to_dict().get("max_position_embeddings")
        return found if isinstance(found, int) else None

    @property
    def hidden_size(self) -> int:
        """Width of its residual stream."""
        if self.description is not None:
            return self.description.text_decoder.hidden_size
        return self.config.get_text_config().hidden_size


def codes_cannot_be_trained(name: object, number_format: str) -> CheckpointError:
    """The error of a quantised model that is to be trained."""
    return CheckpointError(
        f"{name}: the model is quantised already ({number_format}): its codes cannot be trained; "
        "name the floating-point checkpoint it was made from"
    )


def computes_as_made(name: object, precision: Precision) -> CheckpointError:
    """The error of a bundle or a quantised model that is to compute in another precision."""
    return CheckpointError(
        f"{name}: computes as it was exported or quantised, not in {precision}; name the "
        "floating-point checkpoint it was made from, or leave `precision` out"
    )


@dataclass(frozen=True)
class KnownInputs:
    """What an entry reads, as far as it is known."""

    start: KnownModel | None
    """The model that it starts from, described or named."""
    corpus_tokenizer: KnownTokenizer | None
    recorded_layers: tuple[int, ...] | None = None
    """Of the signals that a teacher of this recipe is; None where it is none."""
    models: Mapping[str, tuple[KnownModel, ...]] = field(default_factory=dict)
    """Checkpoints and bundles by the field that names them."""

    def named(self, field: str) -> tuple[KnownModel, ...]:
        """Those that a field names."""
        return self.models.get(field, ())


@runtime_checkable
class ChecksInputs(Protocol):
    """Settings of a stage that knows which models it refuses."""

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Every reason for which it would fail, as it would say it while running."""
        ...


def refusals(field: str, check: Callable[[], object]) -> Iterator[Refusal]:
    """What a check raises of ours, as a refusal."""
    try:
        check()
    except LimbeckError as error:
        yield Refusal(field, str(error))
