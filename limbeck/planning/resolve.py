"""What each entry of a recipe makes and from what: architectures, corpora, steps.

Where a corpus exists its tokenizer and lengths are used; otherwise lengths are assumed, and so is
the vocabulary where the recipe names no tokenizer that is there.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from limbeck.contracts.corpus import Corpus
from limbeck.distillation.teachers.config import RouterSampling
from limbeck.models.vision.image_processing import ImageFormat
from limbeck.models.vocabulary import Vocabulary
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.known_models import KnownModels, ReadsBatches
from limbeck.sizing.assumptions import Assumptions

ASSUMED_IMAGE = ImageFormat(32, 1, 0.5, 0.5, num_tokens=16, token_id=0)
"""For the lengths of records with images, which no encoder reads here."""


@runtime_checkable
class SamplesExperts(Protocol):
    """Settings of a stage whose live teacher may answer with sampled experts."""

    router_sampling: RouterSampling


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of the data before it is used."""

    vocabulary: Vocabulary
    record_tokens: float
    """On average, padding included."""
    longest_tokens: int
    """Of the longest record, as far as the recipe lets it grow where no corpus tells."""
    measured: bool


class Resolver:
    """Finds out what entries make and from what, in the order of the recipe.

    `root` is the run's folder, where corpora may be made already.
    """

    def __init__(self, entries: Mapping[str, Entry], *, root: Path, assumed: Assumptions) -> None:
        self.root = root
        self.assumed = assumed
        self.corpora: dict[str, Known] = {}
        self.models = KnownModels(entries, vocabulary=lambda entry: self.know(entry).vocabulary)

    def know(self, entry: Entry) -> Known:
        """The corpus of an entry: measured when it is made already, assumed otherwise."""
        name = entry.target("corpus")
        batching = entry.config.batching if isinstance(entry.config, ReadsBatches) else None
        known = self.corpora.get(name)
        if known is None:
            corpus = Corpus(self.root / name if (self.root / name).is_dir() else Path(name))
            if name and batching is not None and corpus.tokenizer_path.is_dir():
                # Slow to import, and only a corpus that is made already needs them.
                from limbeck.data.loading.selection import SelectedRecords
                from limbeck.models.tokenizers import load_tokenizer

                tokenizer = load_tokenizer(corpus.tokenizer_path)
                # Without images, the tokens are those that training has kept.
                shown = ASSUMED_IMAGE if corpus.images_path.is_dir() else None
                records = SelectedRecords(
                    corpus, tokenizer=tokenizer, config=batching, image_format=shown
                )
                known = Known(
                    Vocabulary.of(tokenizer),
                    records.num_tokens / len(records),
                    int(records.lengths(records.ids).max()),
                    measured=True,
                )
            else:
                known = Known(self._vocabulary(entry), self.assumed.record_tokens, 0, False)
            self.corpora[name] = known
        if known.measured or batching is None:
            return known
        return dataclasses.replace(known, longest_tokens=batching.max_length)

    def _vocabulary(self, entry: Entry) -> Vocabulary:
        """Of a corpus that is not made yet: its tokenizer may be there, named or made."""
        tokenizer = self.models.tokenizer(entry)
        if tokenizer is None:
            return Vocabulary(self.assumed.vocab)
        if tokenizer.folder is not None:
            return Vocabulary.of(tokenizer.loaded)
        made = Corpus(self.root / tokenizer.name).tokenizer_path
        if not made.is_dir():
            return Vocabulary(self.assumed.vocab)
        from limbeck.models.tokenizers import load_tokenizer

        return Vocabulary.of(load_tokenizer(made))
