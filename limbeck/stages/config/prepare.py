"""Settings of the stage `prepare`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.registry import FILTERS, READERS
from limbeck.contracts.stage import StageConfig
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.splits import SplitConfig
from limbeck.data.filters.base import FilterConfig
from limbeck.data.filters.dedup import Duplicates
from limbeck.data.filters.in_evaluation import InEvaluation
from limbeck.data.filters.length import Length
from limbeck.data.filters.normalization.zh import NormalizeZh
from limbeck.data.filters.quality import Quality
from limbeck.data.packs.load import locate_pack
from limbeck.data.readers.base import ReaderConfig
from limbeck.data.readers.lexicon import LexiconFile

Reader = Annotated[ReaderConfig, Choice(READERS, what="source")]


Filter = Annotated[FilterConfig, Choice(FILTERS, what="filter")]


class Config(StageConfig):
    """A corpus."""

    make: ClassVar[Kind] = "corpus"
    shows_name: ClassVar[bool] = True

    pack: str
    """The domain: a pack's name, or the folder of one."""
    sources: Annotated[tuple[Reader, ...], Field(min_length=1)]
    filters: tuple[Filter, ...] = (
        NormalizeZh(),
        Length(),
        InEvaluation(),
        Duplicates(),
        Quality(),
    )
    """What records pass, in this order; each filter states which sources it applies to."""
    lexicon: tuple[LexiconFile, ...] = ()
    """Names to mark besides the pack's own."""
    splits: SplitConfig = SplitConfig()
    tokenizer: TokenizerConfig | Path = TokenizerConfig()
    """How to train one, or the folder of a teacher's own."""
    seed: int = 0

    @model_validator(mode="after")
    def _check_labels(self) -> "Config":
        labels = [source.label for source in self.sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}: give one of them a `name`")
        return self

    def external_paths(self) -> Iterator[Path]:
        """The pack's folder besides every file that a source reads."""
        yield locate_pack(self.pack)
        yield from super().external_paths()

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.prepare import run

        return run(self, work=work)
