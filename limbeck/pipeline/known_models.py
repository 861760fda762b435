"""Which model each entry of a recipe starts from and makes, before anything is made.

Configs and tokenizers of named folders are opened when they are asked for, weights never. Left out:
what a stage refuses of its inputs (its settings tell), and data.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from limbeck.contracts.artifacts import is_plain_checkpoint, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, CheckpointError
from limbeck.contracts.pointers import follow
from limbeck.data.loading.config import BatchingConfig
from limbeck.models.config import (
    Decoder,
    DenseModel,
    EncoderConfig,
    GroupKind,
    ModelConfig,
    MoeArchitecture,
    MoeModel,
    VisionModel,
)
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.models.known import ConfigChange, KnownInputs, KnownModel, KnownTokenizer
from limbeck.models.saved_adapters import has_tokenizer
from limbeck.models.vocabulary import Vocabulary
from limbeck.objectives.config import ObjectiveConfig
from limbeck.pipeline.entry import Entry, is_folder
from limbeck.pruning.shapes import count_groups, count_left, describe_cut
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.training.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from limbeck.pruning.shapes import Cuttable

MODEL_FIELDS = ("model", "student", "checkpoint")
"""Fields of a stage that say which model it starts from."""
MODEL_KINDS = ("checkpoint", "bundle")


@runtime_checkable
class ReadsBatches(Protocol):
    """Settings of a stage that reads a corpus in batches."""

    batching: BatchingConfig


@runtime_checkable
class TrainsModel(ReadsBatches, Protocol):
    """Settings of a stage that trains a model."""

    training: TrainingConfig
    objective: ObjectiveConfig


@runtime_checkable
class PrunesGroups(Protocol):
    """Settings of a stage that cuts a model."""

    channels_ratio: float
    experts_ratio: float

    @property
    def shares(self) -> Mapping[GroupKind, tuple[float, int]]:
        """Shares and multiples of all kinds."""
        ...

    def resolve_budget(self, config: SizedConfig) -> "PrunesGroups":
        """The same with the shares that a budget takes of a model of this config."""
        ...


@runtime_checkable
class DescribesModel(Protocol):
    """Settings of a stage that makes a model from what is no checkpoint."""

    def describe_model(self) -> "PreTrainedConfig":
        """The architecture of the model that it makes."""
        ...


@runtime_checkable
class AddsEncoder(Protocol):
    """Settings of a stage that makes a model see."""

    encoder: EncoderConfig


@runtime_checkable
class Converts(Protocol):
    """Settings of a stage that writes a model in another architecture."""

    architecture: MoeArchitecture


@runtime_checkable
class MergesAdapter(Protocol):
    """Settings of a stage that adds an adapter to a model."""

    adapter: Path
    """Its folder, with a tokenizer where it brings tokens of its own."""


@runtime_checkable
class SetsFormat(Protocol):
    """Settings of a stage that stores a model in a number format."""

    possible_scheme: QuantizedFormat


@runtime_checkable
class RecordsLayers(Protocol):
    """Settings of a stage that keeps hidden states of a teacher's layers."""

    layers: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Architectures:
    """What an entry trains, and what it makes; they differ where it prunes."""

    trained: KnownModel
    made: KnownModel


class KnownModels:
    """What entries make, in the order of the recipe.

    `vocabulary` gives that of an entry's corpus, as far as it is known.
    """

    def __init__(
        self, entries: Mapping[str, Entry], *, vocabulary: Callable[[Entry], Vocabulary]
    ) -> None:
        self._entries = entries
        self._vocabulary = vocabulary
        self._found: dict[str, Architectures | None] = {}
        self._folders: dict[str, KnownModel | None] = {}
        self._tokenizers: dict[str, KnownTokenizer | None] = {}

    def find(self, entry: Entry) -> Architectures | None:
        """The models of an entry; None where it makes none, or starts from one unknown."""
        if entry.name not in self._found:
            self._found[entry.name] = self._follow(entry)
        return self._found[entry.name]

    def _follow(self, entry: Entry) -> Architectures | None:
        if entry.config.make not in MODEL_KINDS:
            return None
        if isinstance(entry.config, DescribesModel):
            tokenizer = KnownTokenizer(entry.name, None)
            made = KnownModel(repr(entry.name), tokenizer, entry.config.describe_model)
            return Architectures(made, made)
        settings = dict(entry.config)
        for field in MODEL_FIELDS:
            start = settings.get(field)
            if isinstance(start, ModelConfig):
                fresh = KnownModel(
                    name=f"`{field}` of {entry.name!r}",
                    tokenizer=self.tokenizer(entry),
                    read=lambda start=start: start.describe(self._vocabulary(entry)),
                    read_sizes=(
                        (lambda start=start: start.sizes(self._vocabulary(entry)))
                        if isinstance(start, Decoder)
                        else None
                    ),
                    description=start,
                )
                return Architectures(fresh, dataclasses.replace(fresh, name=repr(entry.name)))
            if isinstance(start, str):
                found = self.open(start)
                return None if found is None else Architectures(found, _change(entry, found))
        return None

    def open(self, target: str) -> KnownModel | None:
        """The model that a reference names; None where it is none, or cannot be known yet."""
        if target in self._entries:
            found = self.find(self._entries[target])
            return None if found is None else found.made
        if target not in self._folders:
            self._folders[target] = open_folder(target)
        return self._folders[target]

    def tokenizer(self, entry: Entry) -> KnownTokenizer | None:
        """Of the corpus that an entry reads; None where it reads none."""
        name = entry.target("corpus")
        while name in self._entries and self._entries[name].target("corpus"):
            name = self._entries[name].target("corpus")
        if not name:
            return None
        if name not in self._tokenizers:
            self._tokenizers[name] = self._find_tokenizer(name)
        return self._tokenizers[name]

    def _find_tokenizer(self, corpus: str) -> KnownTokenizer | None:
        if corpus in self._entries:
            named = self._entries[corpus].target("tokenizer")
            if named in self._entries:
                model = self.open(named)
                return None if model is None else model.tokenizer
            return KnownTokenizer(named or corpus, locate(named) if named else None)
        if not is_folder(corpus):
            return None
        folder = Corpus(follow(Path(corpus))).tokenizer_path
        return KnownTokenizer(str(folder), folder)

    def inputs(self, entry: Entry) -> KnownInputs:
        """All that is known of what an entry reads."""
        models: dict[str, tuple[KnownModel, ...]] = {}
        for reference in entry.references:
            found = self.open(reference.target) if set(reference.kinds) & {*MODEL_KINDS} else None
            if found is not None:
                models[reference.field] = (*models.get(reference.field, ()), found)
        known = self.find(entry)
        start = None if known is None else known.trained
        return KnownInputs(start, self.tokenizer(entry), self._recorded_layers(entry), models)

    def _recorded_layers(self, entry: Entry) -> tuple[int, ...] | None:
        """Of the signals of this recipe that teach an entry; None where none do."""
        teacher = self._entries.get(entry.target("teacher"))
        if teacher is None or not isinstance(teacher.config, RecordsLayers):
            return None
        return teacher.config.layers

    def live_teachers(self, entry: Entry) -> Iterator[KnownModel]:
        """The models that run beside the trained one; none where there are only signals."""
        for reference in entry.references:
            if reference.field == "teacher" and (found := self.open(reference.target)):
                yield found


def open_folder(target: str) -> KnownModel | None:
    """The model in a folder, or of the hub; None for what is neither, or is no checkpoint."""
    folder = locate(target)
    if folder is None or not _holds_checkpoint(folder):
        return None
    return KnownModel(
        name=target,
        tokenizer=KnownTokenizer(target, folder),
        read=partial(_read_config, folder),
        folder=folder,
        codes=_read_format(folder),
    )


def locate(target: str) -> Path | None:
    """The folder that a reference names, or that the hub's small files were put in; or None."""
    if is_folder(target):
        return follow(Path(target))
    from limbeck.models.hub import find_description

    return find_description(target)


def _holds_checkpoint(folder: Path) -> bool:
    if is_plain_checkpoint(folder):  # whose artifact would be a hash of all its weights
        return True
    try:
        return read_artifact(folder).manifest.kind == "checkpoint"
    except ArtifactError:
        return False


def _read_config(folder: Path) -> "PreTrainedConfig":
    from limbeck.models.checkpoints import open_config

    return open_config(folder)


def _read_format(folder: Path) -> QuantizedFormat | None:
    """The number format of a folder's codes; None where it cannot be read, as `check` reports."""
    from limbeck.models.checkpoints import read_number_format

    try:
        return read_number_format(folder)
    except CheckpointError:
        return None


def _change(entry: Entry, start: KnownModel) -> KnownModel:
    """What an entry makes of the model that it starts from."""
    settings = entry.config
    change: ConfigChange | None = None
    if isinstance(settings, AddsEncoder):
        change = partial(settings.encoder.describe, image_token_id=0)
    elif isinstance(settings, PrunesGroups):
        change = partial(_prune, settings=settings, name=entry.name)
    elif isinstance(settings, Converts):
        change = partial(_convert, architecture=settings.architecture)
    elif isinstance(settings, MergesAdapter):
        change = partial(_merge, adapter=settings.adapter)
    is_bundle = settings.make == "bundle"
    found = dataclasses.replace(start, name=repr(entry.name), folder=None, is_bundle=is_bundle)
    if isinstance(settings, MergesAdapter) and has_tokenizer(settings.adapter):
        own = KnownTokenizer(str(settings.adapter), settings.adapter)
        found = dataclasses.replace(found, tokenizer=own, description=None)
    if change is not None:
        found = dataclasses.replace(
            found, changes=(*start.changes, change), read_sizes=_change_sizes(entry, start)
        )
    if isinstance(settings, AddsEncoder) and isinstance(start.description, MoeModel | DenseModel):
        seeing = VisionModel(kind="vision", text=start.description, encoder=settings.encoder)
        found = dataclasses.replace(found, description=seeing)
    elif isinstance(settings, AddsEncoder | Converts):
        found = dataclasses.replace(found, description=None)
    if isinstance(settings, SetsFormat):
        found = dataclasses.replace(found, codes=settings.possible_scheme)
    return found


def _merge(config: "PreTrainedConfig", *, adapter: Path) -> "PreTrainedConfig":
    from limbeck.models.checkpoints import build_without_weights
    from limbeck.models.saved_adapters import describe_merged

    return describe_merged(build_without_weights(config), folder=adapter)


def _change_sizes(entry: Entry, start: KnownModel) -> Callable[[], DecoderSizes] | None:
    """The sizes after an entry; None where its change, or its start, needs transformers."""
    settings, read = entry.config, start.read_sizes
    if read is None or not isinstance(settings, PrunesGroups):
        return None
    return lambda: _prune(read(), settings=settings, name=entry.name)


def _prune(config: "Cuttable", *, settings: PrunesGroups, name: str) -> "Cuttable":
    """The architecture after pruning: narrower blocks, fewer heads."""
    settings = settings.resolve_budget(config)
    num_groups = count_groups(config.get_text_config())
    if settings.channels_ratio and not num_groups["channels"]:
        raise CheckpointError(
            f"{name}: a model of type {config.model_type!r} has no dense feed-forward width "
            "(intermediate_size) to cut; prune a dense decoder, as a distilled student"
        )
    if settings.experts_ratio and not num_groups["experts"]:
        raise CheckpointError(
            f"{name}: a model of type {config.model_type!r} has no experts to cut; leave "
            "experts_ratio out"
        )
    num_kept = count_left(config.get_text_config(), shares=settings.shares)
    return describe_cut(config, num_kept=num_kept)


def _convert(config: "PreTrainedConfig", *, architecture: MoeArchitecture) -> "PreTrainedConfig":
    from limbeck.models.moe.convert_qwen3 import describe_converted

    return describe_converted(config, architecture=architecture)
