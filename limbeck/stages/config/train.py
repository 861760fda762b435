"""Settings of the stage `train`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator
from typing_extensions import override

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Choice, NameOr
from limbeck.contracts.registry import MODELS, OBJECTIVES
from limbeck.contracts.stage import (
    Accepts,
    CheckpointRef,
    CorpusRef,
    StageConfig,
    check_initialize_from,
)
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.known_inputs import refuse_inheritance, refuse_training
from limbeck.models.adapters import LoraConfig, check_start
from limbeck.models.config import ModelConfig
from limbeck.models.known import KnownInputs, Refusal
from limbeck.objectives.config import ObjectiveConfig
from limbeck.training.config import TrainingConfig


class Config(StageConfig):
    """Train a model on a corpus, without a teacher; its start is the reference of `dpo`, `grpo`."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    processes: ClassVar[Literal["first", "all"]] = "all"
    stage: Literal["train"]
    corpus: CorpusRef
    model: Annotated[str | ModelConfig, NameOr(MODELS, what="model"), Accepts(("checkpoint",))]
    """A fresh model by description, or a checkpoint to go on with."""
    initialize_from: CheckpointRef = ""
    """A checkpoint, as a teacher, whose embeddings, attention and norms a fresh model takes."""
    objective: Annotated[ObjectiveConfig, Choice(OBJECTIVES, what="objective")]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    lora: LoraConfig | None = None
    """Trains adapters beside the frozen weights of a checkpoint, for models too large to be trained
    whole. They are merged into the checkpoint; its folder `adapter` holds them alone."""
    seed: int = 0
    """Of fresh weights."""

    @model_validator(mode="after")
    def _check_start(self) -> "Config":
        check_initialize_from(self.initialize_from, start=self.model, field="model")
        check_start(self.lora, start=self.model, field="model")
        self.objective.check_start(self.model)
        self.objective.check_packing(self.batching.packing)
        self.objective.check_early_stopping(self.training.early_stopping)
        return self

    @property
    @override
    def domain_need(self) -> str:
        return self.objective.domain_need

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Codes, and a source of which nothing fits."""
        packed = self.batching.packing != "none"
        yield from refuse_training(inputs, field="model", packed=packed, objective=self.objective)
        for source in inputs.named("initialize_from"):
            yield from refuse_inheritance(inputs.start, source, corpus=inputs.corpus_tokenizer)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.train import run

        return run(self, work=work)
