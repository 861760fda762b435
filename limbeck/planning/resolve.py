"""What each entry of a recipe makes and from what: architectures, corpora, steps.

Where a corpus exists its tokenizer and lengths are used; otherwise lengths are assumed, and so is
the vocabulary where the recipe names no tokenizer that is there.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from transformers import AutoConfig, PreTrainedConfig

from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import CheckpointError
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.teachers.config import RouterSampling
from limbeck.models.config import EncoderConfig, GroupKind, ModelConfig
from limbeck.models.vision.image_processing import ImageFormat
from limbeck.models.vocabulary import Vocabulary
from limbeck.objectives.config import ObjectiveConfig
from limbeck.pipeline.check import Entry
from limbeck.pruning.shapes import count_kept, describe_cut
from limbeck.sizing.assumptions import Assumptions
from limbeck.training.config import TrainingConfig

ASSUMED_IMAGE = ImageFormat(32, 1, 0.5, 0.5, num_tokens=16, token_id=0)
"""For the lengths of records with images, which no encoder reads here."""
MODEL_FIELDS = ("model", "student", "checkpoint")
"""Fields of a stage that say which model it starts from."""


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
class SamplesExperts(Protocol):
    """Settings of a stage whose live teacher may answer with sampled experts."""

    router_sampling: RouterSampling


@runtime_checkable
class PrunesGroups(Protocol):
    """Settings of a stage that cuts a model."""

    channels_ratio: float
    heads_ratio: float
    multiple: int


@runtime_checkable
class AddsEncoder(Protocol):
    """Settings of a stage that makes a model see."""

    encoder: EncoderConfig


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of the data before it is used."""

    vocabulary: Vocabulary
    record_tokens: float
    """On average, padding included."""
    longest_tokens: int
    """Of the longest record, as far as the recipe lets it grow where no corpus tells."""
    measured: bool


@dataclasses.dataclass(frozen=True)
class Architectures:
    """What an entry trains, and what it makes; they differ where it prunes."""

    trained: PreTrainedConfig
    made: PreTrainedConfig


class Resolver:
    """Finds out what entries make, in the order of the recipe; `root` is the run's folder.

    `tokenizers` are the folders that recipes name for corpora not made yet, by entry.
    """

    def __init__(
        self, *, root: Path, assumed: Assumptions, tokenizers: Mapping[str, Path] | None = None
    ) -> None:
        self.root = root
        self.tokenizers = tokenizers or {}
        self.assumed = assumed
        self.made: dict[str, PreTrainedConfig] = {}
        self.corpora: dict[str, Known] = {}

    def know(self, entry: Entry) -> Known:
        """The corpus of an entry: measured when it is made already, assumed otherwise."""
        name = _target(entry, "corpus")
        batching = entry.config.batching if isinstance(entry.config, ReadsBatches) else None
        known = self.corpora.get(name)
        if known is None:
            corpus = Corpus(self.root / name if (self.root / name).is_dir() else Path(name))
            if name and batching is not None and corpus.tokenizer_path.is_dir():
                # Slow to import, and only a corpus that is made already needs them.
                from limbeck.data.loading.batches import Batches
                from limbeck.models.checkpoints import load_tokenizer

                tokenizer = load_tokenizer(corpus.tokenizer_path)
                batches = Batches(
                    corpus, tokenizer=tokenizer, config=batching, image_format=ASSUMED_IMAGE
                )
                known = Known(
                    Vocabulary.of(tokenizer),
                    batches.num_tokens / len(batches),
                    int(batches.lengths(batches.record_ids).max()),
                    measured=True,
                )
            else:
                known = Known(self._vocabulary(name), self.assumed.record_tokens, 0, False)
            self.corpora[name] = known
        if known.measured or batching is None:
            return known
        return dataclasses.replace(known, longest_tokens=batching.max_length)

    def _vocabulary(self, corpus: str) -> Vocabulary:
        """Of a corpus that is not made yet: its recipe may name a tokenizer that is there."""
        if corpus not in self.tokenizers:
            return Vocabulary(self.assumed.vocab)
        from limbeck.models.checkpoints import load_tokenizer

        return Vocabulary.of(load_tokenizer(self.tokenizers[corpus]))

    def find(self, entry: Entry) -> Architectures | None:
        """The architectures of an entry; None where it makes no model.

        Raises:
            CheckpointError: it starts from a model that cannot be read, or cannot be cut.
        """
        if entry.config.make not in ("checkpoint", "bundle"):
            return None
        for field in MODEL_FIELDS:
            start = dict(entry.config).get(field)
            if isinstance(start, ModelConfig):
                config = start.describe(self.know(entry).vocabulary)
                return self._keep(entry, Architectures(config, config))
            if isinstance(start, str):
                config = self.made.get(start) or _read_config(start)
                return self._keep(entry, Architectures(config, _change(entry, config)))
        return None

    def _keep(self, entry: Entry, found: Architectures) -> Architectures:
        self.made[entry.name] = found.made
        return found

    def find_live_teachers(self, entry: Entry) -> list[PreTrainedConfig]:
        """The models that run beside the trained one; none where there are only signals."""
        if not isinstance(entry.config, TrainsModel):
            return []
        names = [item.target for item in entry.references if item.field == "teacher"]
        return [
            self.made[name] if name in self.made else _read_config(name)
            for name in names
            if name in self.made or (Path(name) / "config.json").is_file()
        ]


def _target(entry: Entry, field: str) -> str:
    return next((item.target for item in entry.references if item.field == field), "")


def _change(entry: Entry, config: PreTrainedConfig) -> PreTrainedConfig:
    """What an entry makes of the model that it starts from."""
    if isinstance(entry.config, AddsEncoder):
        return entry.config.encoder.describe(config, image_token_id=0)
    if isinstance(entry.config, PrunesGroups):
        return _prune(config, entry.config, name=entry.name)
    return config


def _prune(config: PreTrainedConfig, settings: PrunesGroups, *, name: str) -> PreTrainedConfig:
    """The architecture after pruning: narrower blocks, fewer heads."""
    values = config.to_dict()
    if "intermediate_size" not in values or "text_config" in values:
        raise CheckpointError(
            f"{name}: a model of type {config.model_type!r} has no dense feed-forward width "
            "(intermediate_size) to cut; prune a dense decoder, as a distilled student"
        )
    num_groups: dict[GroupKind, tuple[int, float, int]] = {
        "channels": (values["intermediate_size"], settings.channels_ratio, settings.multiple),
        "heads": (
            values.get("num_key_value_heads") or values["num_attention_heads"],
            settings.heads_ratio,
            1,
        ),
    }
    num_kept: dict[GroupKind, int] = {
        kind: count_kept(number, ratio=ratio, multiple=multiple, kind=kind)
        for kind, (number, ratio, multiple) in num_groups.items()
        if ratio
    }
    return describe_cut(config, num_kept=num_kept)


def _read_config(folder: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: its config cannot be read, so it cannot be sized: {str(error)[:300]}"
        ) from error
