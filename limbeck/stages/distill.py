"""Student, corpus and teacher (or its signals) to a checkpoint; healing is the same stage."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Kind, Work
from limbeck.contracts.config import Choice, NameOr
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.registry import MODELS, OBJECTIVES
from limbeck.contracts.stage import (
    CheckpointRef,
    CorpusRef,
    StageConfig,
    TeacherRef,
    Wants,
)
from limbeck.data.loading.batches import (
    Batches,
    BatchingConfig,
    open_validation,
    split_by_length,
    validation_batches,
)
from limbeck.distillation.diagnostics.expert_gap import find_most_missed, measure_misses
from limbeck.distillation.diagnostics.probe import Probe
from limbeck.distillation.initialization.from_experts import merge_experts
from limbeck.distillation.initialization.from_weights import inherit
from limbeck.distillation.on_policy import OnPolicy
from limbeck.distillation.teachers.ensemble import Teachers, check_teachers
from limbeck.distillation.teachers.offloading import move_unless_offloaded
from limbeck.distillation.teachers.open import open_teacher
from limbeck.distillation.teachers.router_sampling import RouterSampling
from limbeck.evaluation.validation_loss import measure_validation
from limbeck.models.batch import Batch
from limbeck.models.builders import ModelConfig
from limbeck.models.checkpoints import load_model, load_tokenizer, open_start, save_checkpoint
from limbeck.models.vision.modeling import image_format
from limbeck.models.vocabulary import end_token_id
from limbeck.objectives.base import ObjectiveConfig, ObjectiveContext
from limbeck.training.distributed.ranks import place
from limbeck.training.loop import TrainingConfig, fit

DIAGNOSTIC_RECORDS = 32
"""Records that the detectors look at, at most."""
DIAGNOSTIC_LOGIT_BYTES = 2**27
"""Of their logits in float32, at most: with a large vocabulary fewer records are looked at."""
EXPERT_USAGE_STEPS = 8
"""So many steps' batches say which of the teacher's experts are used most."""


class Config(StageConfig):
    """Teach a student what the teacher says."""

    make: ClassVar[Kind] = "checkpoint"
    processes: ClassVar[Literal["first", "all"]] = "all"
    stage: Literal["distill"]
    student: Annotated[str | ModelConfig, NameOr(MODELS, what="model"), Wants(("checkpoint",))]
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
    """Whether a live mixture of experts is also asked with experts that its router leaves out."""
    corpus: CorpusRef
    objective: Annotated[ObjectiveConfig, Choice(OBJECTIVES, what="objective")]
    batching: BatchingConfig = BatchingConfig()
    training: TrainingConfig
    on_policy: OnPolicy = OnPolicy()
    """How often the student's own answers are judged instead of those that the corpus holds."""
    diagnostics: Literal["on", "off"] = "on"
    """Whether a few records are looked at for signs that little will be learnt."""
    seed: int = 0
    """Of fresh weights."""

    @model_validator(mode="after")
    def _check_teacher(self) -> "Config":
        self.objective.check_teacher(", ".join(self.teacher_names))
        check_teachers(self.teachers, names=self.teacher_names, needs=self.objective.needs())
        self.objective.check_packing(self.batching.packing)
        if self.initialize_from and isinstance(self.student, str):
            raise ValueError(
                f"initialize_from: {self.initialize_from!r} is for a fresh student, yet `student` "
                f"continues from {self.student!r}; remove one of the two"
            )
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


def run(config: Config, *, work: Work) -> dict[str, Any]:
    """Write the student's checkpoint and its training curve."""
    corpus = work.one("corpus")
    config.on_policy.check_teachers(work.inputs.get("teacher", ()))
    tokenizer, student = open_start(config.student, work=work, field="student", seed=config.seed)
    place(student)
    data: Any = {
        "tokenizer": tokenizer,
        "config": config.batching,
        "image_format": image_format(student.config),
    }
    batches = Batches(corpus.path, **data)
    inherited = _inherit(student, tokenizer, config=config, work=work, batches=batches)
    teacher = open_teacher(
        work.inputs.get("teacher", ()),
        names=config.teacher_names,
        teachers=config.teachers,
        router_sampling=config.router_sampling,
        corpus=corpus,
        batching=config.batching,
        needs=config.objective.needs(),
        image_format=image_format(student.config),
    )
    max_tokens = DIAGNOSTIC_LOGIT_BYTES // (4 * len(tokenizer))
    asked = (open_validation(corpus.path, **data) or batches).take(
        DIAGNOSTIC_RECORDS, max_tokens=max_tokens
    )
    shown = batches.take(DIAGNOSTIC_RECORDS, max_tokens=max_tokens)
    context = ObjectiveContext(student, teacher=teacher)
    objective = config.objective.resolve_layers(context, batches=[shown])
    probe = Probe(
        objective,
        student,
        teacher,
        shown,
        asked,
        tokenizer_tokens=len(tokenizer),
        fresh=not isinstance(config.student, str) and not config.initialize_from,
    )
    warnings = probe.before() if config.diagnostics == "on" else []
    own = None
    if config.on_policy.ratio:
        assert teacher is not None
        own = config.on_policy.build(
            model=student,
            batches=batches,
            max_tokens=config.batching.max_length,
            part=partial(split_by_length, config=config.batching),
            vocab=teacher.vocab,
            end_id=end_token_id(tokenizer),
            pad_id=batches.pad,
            seed=config.training.seed,
        )
    training = config.training.resolve_steps(tokens_per_step=batches.tokens_per_step)
    history = fit(
        student,
        batches=own or batches,
        objective=objective.build(context),
        config=training,
        state=work.state,
        title=work.name,
        on_step=work.on_step,
        stateful=own,
    )
    if own is not None:
        history = own.mark(history)
    live_model = None
    if teacher is not None:
        teacher.close()
        live_model = teacher.live_model
    save_checkpoint(student, tokenizer=tokenizer, folder=work.folder)
    (work.folder / "history.json").write_text(json.dumps(history))
    if config.diagnostics == "on":
        warnings += probe.after() + ([] if own is None else own.warn())
    held_out = partial(validation_batches, corpus.path, **data)
    return {
        "warnings": warnings,
        **{name: history[-1][name] for name in ("loss", "kl", "ce") if name in history[-1]},
        "steps": training.max_steps,
        "parameters": sum(item.numel() for item in student.parameters()),
        **({} if own is None else own.measure()),
        **inherited,
        **_name_layers(config, objective),
        **_report_misses(student, live_model, held_out(), vocab=len(tokenizer), work=work),
        **measure_validation(student, held_out()),
    }


def _report_misses(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    batches: Iterator[Batch],
    *,
    vocab: int,
    work: Work,
) -> dict[str, Any]:
    """Write `router.json`: how far the student is from each expert of a live teacher."""
    if teacher is None:
        return {}
    move_unless_offloaded(teacher, student.device)
    misses = measure_misses(student, teacher, batches, vocab=vocab)
    if not misses:
        return {}
    (work.folder / "router.json").write_text(json.dumps(misses))
    return {"missed": {"kl": misses["kl"], "most": find_most_missed(misses)}}


def _name_layers(config: Config, objective: ObjectiveConfig) -> dict[str, Any]:
    """Student and teacher layer of each matched pair, where the recipe left them to a map."""
    if objective == config.objective:
        return {}
    pairs = [(pair.student_layer, pair.teacher_layer) for pair in objective.matched_features]
    return {"matched_layers": pairs}


def _inherit(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    config: Config,
    work: Work,
    batches: Batches,
) -> dict[str, Any]:
    """What of the student's parameters it takes over, as metrics: a share, and which experts."""
    if not config.initialize_from:
        return {"inherited_ratio": 0.0}
    source = work.one("initialize_from").path
    if load_tokenizer(source).get_vocab() != tokenizer.get_vocab():
        raise CheckpointError(
            f"{source}: its tokenizer is not the corpus's, so its embeddings mean other tokens; "
            "prepare the corpus with that tokenizer, or leave `inherit` out"
        )
    model = load_model(source, dtype="auto")
    ratio = inherit(student, teacher=model)
    if config.initialize_experts == "none":
        return {"inherited_ratio": ratio}
    shown = (batch for step in range(EXPERT_USAGE_STEPS) for batch in batches(step))
    taken = merge_experts(student, teacher=model, batches=shown)
    return {
        "inherited_ratio": ratio + taken["copied_ratio"],
        "experts": taken["experts"],
        "experts_gate_weight_ratios": taken["gate_weight_ratios"],
    }
