"""Settings of the stage `record`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice
from limbeck.contracts.registry import CODECS
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.known_inputs import refuse_teacher
from limbeck.distillation.signals.config import Codec, HiddenPrecision, Plain
from limbeck.models.known import KnownInputs, Refusal


class Config(StageConfig):
    """Record a teacher's most likely tokens at every position that a student learns from."""

    make: ClassVar[ArtifactKind] = "signals"
    stage: Literal["record"]
    teacher: CheckpointRef
    corpus: CorpusRef
    targets: Annotated[Codec, Choice(CODECS, what="targets")] = Plain(kind="plain")
    """What is stored of every position."""
    layers: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Teacher layers whose hidden states are kept, counted from 1."""
    hidden_precision: HiddenPrecision = "float16"
    """How hidden states are kept; int8 has one scale a position."""
    batching: BatchingConfig = BatchingConfig()
    shard_records: Annotated[int, Field(gt=0)] = 2048
    """Records of one file; a killed run goes on after the last whole file."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    """Records of one forward pass."""
    seed: int = 0
    """Of drawn tokens."""

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Teachers of another tokenizer, or without the layers that are kept."""
        for teacher in inputs.named("teacher"):
            yield from refuse_teacher(teacher, corpus=inputs.corpus_tokenizer, layers=self.layers)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.record import run

        return run(self, work=work)
