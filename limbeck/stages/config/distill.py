"""Settings of the stage `distill`."""

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
    TeacherRef,
    check_initialize_from,
)
from limbeck.data.loading.config import BatchingConfig
from limbeck.distillation.config import OnPolicy
from limbeck.distillation.known_inputs import (
    refuse_experts,
    refuse_inheritance,
    refuse_sampling,
    refuse_teachers,
    refuse_training,
)
from limbeck.distillation.teachers.config import RouterSampling, Teachers, check_teachers
from limbeck.models.adapters import LoraConfig, check_start
from limbeck.models.config import ModelConfig
from limbeck.models.known import KnownInputs, Refusal
from limbeck.objectives.config import ObjectiveConfig
from limbeck.training.config import TrainingConfig


class Config(StageConfig):
    """Train a student to match a teacher."""

    make: ClassVar[ArtifactKind] = "checkpoint"
    processes: ClassVar[Literal["first", "all"]] = "all"
    stage: Literal["distill"]
    student: Annotated[str | ModelConfig, NameOr(MODELS, what="model"), Accepts(("checkpoint",))]
    """A fresh model by description, or a checkpoint to heal or to update."""
    teacher: TeacherRef | tuple[TeacherRef, ...]
    """A checkpoint that runs live, or signals recorded once; or several of them."""
    teachers: Teachers = Teachers()
    """How several teachers are one."""
    initialize_from: CheckpointRef = ""
    """A checkpoint, as the teacher, whose embeddings, attention and norms a fresh student takes."""
    initialize_experts: Literal["none", "most_used"] = "none"
    """Whether the fresh student's feed-forward layers too are taken, from the most used experts."""
    router_sampling: RouterSampling = RouterSampling()
    """Whether a live mixture of experts also runs with experts that its router leaves out."""
    corpus: CorpusRef
    objective: Annotated[ObjectiveConfig, Choice(OBJECTIVES, what="objective")]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    lora: LoraConfig | None = None
    """Trains adapters beside the frozen weights of a checkpoint, for models too large to be trained
    whole. They are merged into the checkpoint; its folder `adapter` holds them alone."""
    on_policy: OnPolicy = OnPolicy()
    """How often a step trains on the student's own answers instead of the corpus's."""
    diagnostics: Literal["on", "off"] = "on"
    """Whether a few records are checked for signs that little will be learnt."""
    seed: int = 0
    """Of fresh weights."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        self.objective.check_teacher(", ".join(self.teacher_names))
        check_teachers(self.teachers, names=self.teacher_names, needs=self.objective.needs())
        self.objective.check_packing(self.batching.packing)
        self.objective.check_early_stopping(self.training.early_stopping)
        check_initialize_from(self.initialize_from, start=self.student, field="student")
        check_start(self.lora, start=self.student, field="student")
        if self.initialize_experts != "none" and not self.initialize_from:
            raise ValueError(
                f"initialize_experts: {self.initialize_experts!r} needs a checkpoint to take them "
                "from: name it in `initialize_from`"
            )
        self.on_policy.check(objective=self.objective, select=self.batching.select)
        self._check_pairs()
        return self

    def _check_pairs(self) -> None:
        """Refuse settings that are sound alone and cannot work together."""
        several = len(self.teacher_names) > 1
        matched = self.objective.matched_features
        packed = self.batching.packing != "none"
        wrong = {
            "several teachers and `objective.matching`: layers are matched with those of one": (
                several and matched
            ),
            "several teachers and `router_sampling`: experts are drawn of one": (
                several and self.router_sampling.num_samples
            ),
            "`batching.packing` and matched attention or values: these would compare tokens of one "
            "record with those of another; match `what: hidden`": (
                packed and any(item.kind != "hidden" for item in matched)
            ),
            "`batching.packing` and `teachers.mix: specialty`: each record has its own teacher, "
            "and a packed row has several records": (
                packed and several and self.teachers.mix == "specialty"
            ),
        }
        for what, holds in wrong.items():
            if holds:
                raise ValueError(f"{what}; remove one of the two")

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Every teacher, in order; none where the field is empty."""
        names = (self.teacher,) if isinstance(self.teacher, str) else self.teacher
        return tuple(filter(None, names))

    def check_inputs(self, inputs: KnownInputs) -> Iterator[Refusal]:
        """Codes, teachers of another tokenizer or without layers, sources of which nothing fits."""
        packed = self.batching.packing != "none"
        yield from refuse_training(inputs, field="student", packed=packed, objective=self.objective)
        matched = self.objective.matched_features
        yield from refuse_teachers(inputs, needs=self.objective.needs(), matched=matched)
        for source in inputs.named("initialize_from"):
            yield from refuse_inheritance(inputs.start, source, corpus=inputs.corpus_tokenizer)
            if self.initialize_experts != "none":
                yield from refuse_experts(source)
        num_samples = self.router_sampling.num_samples
        yield from refuse_sampling(inputs.named("teacher"), num_samples=num_samples)

    @override
    def run(self, *, work: Work) -> Mapping[str, object]:
        from limbeck.stages.distill import run

        return run(self, work=work)
