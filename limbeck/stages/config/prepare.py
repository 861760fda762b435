"""Settings of the stage `prepare`."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.fields import PositiveRatio
from limbeck.contracts.records import Split
from limbeck.contracts.registry import FILTERS, READERS
from limbeck.contracts.stage import Accepts, StageConfig
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.splits import SplitConfig
from limbeck.data.filters.base import FilterConfig
from limbeck.data.filters.dedup import Duplicates
from limbeck.data.filters.in_evaluation import InEvaluation
from limbeck.data.packs.load import has_wording, locate_pack
from limbeck.data.readers.base import ReaderConfig
from limbeck.data.readers.lexicon import LexiconFile
from limbeck.models.known import KnownInputs, Refusal, refusals

NEEDS_PACK = "needs the domain of a pack: set `pack`, or leave it out"
Reader = Annotated[ReaderConfig, Choice(READERS, what="source")]


Filter = Annotated[FilterConfig, Choice(FILTERS, what="filter")]


class Config(StageConfig):
    """A corpus."""

    make: ClassVar[ArtifactKind] = "corpus"
    shows_name: ClassVar[bool] = True

    pack: str = ""
    """The domain: a pack's name, or the folder of one; empty: none."""
    sources: Annotated[tuple[Reader, ...], Field(min_length=1)]
    filters: tuple[Filter, ...] = (InEvaluation(), Duplicates())
    """What records pass, in this order; each filter states which sources it applies to."""
    lexicon: tuple[LexiconFile, ...] = ()
    """Names to mark besides the pack's own."""
    splits: SplitConfig = SplitConfig()
    labelled_ratio: PositiveRatio = 1.0
    """Share of the training groups that keep their answers. The questions of the others stay
    without, for a teacher to answer (`label`): what few labels are worth can so be measured."""
    tokenizer: Annotated[TokenizerConfig | str, Accepts(("checkpoint",))] = TokenizerConfig()
    """How to train one, or a teacher: its entry, its folder or its name on the hub."""
    chat_template: Path | Literal["own"] = "own"
    """How conversations are written: the tokenizer's own template (of a base model, which has none,
    a plain one), or a file with a Jinja template. It goes with the corpus's tokenizer, and with
    every model of the same tokenizer that is trained on it."""
    enable_thinking: Literal["default", "on", "off"] = "default"
    """Of a teacher's chat template that has this switch: whether answers begin with a thought. It
    goes with the corpus's tokenizer, and so with every model trained on it."""
    seed: int = 0

    @model_validator(mode="after")
    def _check_labels(self) -> "Config":
        labels = [source.label for source in self.sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}: give one of them a `name`")
        return self

    @model_validator(mode="after")
    def _check_thinking(self) -> "Config":
        if self.enable_thinking != "default" and isinstance(self.tokenizer, TokenizerConfig):
            raise ValueError(
                "enable_thinking is a switch of a teacher's chat template: name the teacher's "
                "folder as `tokenizer`, or leave it out"
            )
        if isinstance(self.chat_template, Path) and isinstance(self.tokenizer, TokenizerConfig):
            raise ValueError(
                "chat_template: a tokenizer that is trained here has a template of its own; name a "
                "model's folder as `tokenizer`, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_pack(self) -> "Config":
        if self.pack:
            return self
        for source in self.sources:
            if source.domain_need:
                raise ValueError(f"source {source.label!r}: {source.domain_need} {NEEDS_PACK}")
        for step in self.filters:
            if step.domain_need:
                raise ValueError(f"{step.domain_need} {NEEDS_PACK}")
        return self

    @property
    @override
    def makes_no_domain(self) -> bool:
        return not self.pack

    @property
    @override
    def makes_no_facts(self) -> bool:
        return not self.pack or not has_wording(locate_pack(self.pack))

    @property
    @override
    def makes_no_bare_questions(self) -> bool:
        return self.labelled_ratio == 1 and all(source.has_answers for source in self.sources)

    def external_paths(self) -> Iterator[Path]:
        """The folder of the pack, if any, besides every file that a source reads."""
        if self.pack:
            yield locate_pack(self.pack)
        yield from super().external_paths()

    @property
    def stated_splits(self) -> dict[str, Split]:
        """The splits of the sources that are one, by their labels."""
        return {
            source.label: source.stated_split
            for source in self.sources
            if source.stated_split is not None
        }

    @property
    def states_template(self) -> bool:
        """Whether the recipe says how conversations are written."""
        return isinstance(self.chat_template, Path) or self.enable_thinking != "default"

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """A tokenizer or a template that cannot be used."""
        for known in inputs.named("tokenizer"):
            folder = known.folder
            if not self.states_template or folder is None:
                continue
            from limbeck.stages.prepare import open_tokenizer

            yield from refusals("chat_template", partial(open_tokenizer, self, folder=folder))

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.prepare import run

        return run(self, work=work)
