"""Student, corpus and teacher (or its signals) to a checkpoint; healing is the same stage."""

import json
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.config import choice
from limbeck.contracts.stage import CorpusRef, StageConfig, TeacherRef, checkpoint_or
from limbeck.data.batching import Batches, BatchingConfig
from limbeck.data.signals import open_teacher
from limbeck.models import MODELS
from limbeck.models.loading import load_model, load_tokenizer, save_checkpoint
from limbeck.objectives import OBJECTIVES
from limbeck.objectives.loss import check_teacher
from limbeck.training.loop import TrainingConfig, fit


class Config(StageConfig):
    """Teach a student what the teacher says."""

    make: ClassVar[Kind] = "checkpoint"
    stage: Literal["distill"]
    student: checkpoint_or(MODELS, what="model")  # pyright: ignore[reportInvalidTypeForm]
    """A fresh model by description, or a checkpoint to heal or to update."""
    teacher: TeacherRef
    """A checkpoint that runs live, or signals recorded once."""
    corpus: CorpusRef
    objective: choice(OBJECTIVES, what="objective")  # pyright: ignore[reportInvalidTypeForm]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    seed: int = 0
    """Of fresh weights."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        check_teacher(self.objective, self.teacher)
        return self


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the student's checkpoint and its training curve."""
    corpus = work.one("corpus")
    if isinstance(config.student, str):
        start = work.one("student").path
        tokenizer, student = load_tokenizer(start), load_model(start)
    else:
        tokenizer = load_tokenizer(corpus.path / "tokenizer")
        student = config.student.build(tokenizer=tokenizer, seed=config.seed)
    teacher = open_teacher(
        work.inputs["teacher"], corpus=corpus, batching=config.batching,
        needs=config.objective.needs(),
    )  # fmt: skip
    history = fit(
        student,
        batches=Batches(corpus.path, tokenizer=tokenizer, config=config.batching),
        objective=config.objective.build(model=student, teacher=teacher),
        config=config.training,
        state=work.state,
        title=work.name,
    )
    save_checkpoint(student, tokenizer=tokenizer, folder=work.folder)
    (work.folder / "history.json").write_text(json.dumps(history))
    return {
        **{name: history[-1][name] for name in ("loss", "kl", "ce") if name in history[-1]},
        "steps": config.training.steps,
        "parameters": sum(item.numel() for item in student.parameters()),
    }
