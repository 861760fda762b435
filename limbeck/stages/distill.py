"""Student, corpus and teacher (or its signals) to a checkpoint; healing is the same stage."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.data.loading.batches import Batches, split_by_length
from limbeck.distillation.diagnostics.expert_gap import find_largest_gap, measure_expert_gap
from limbeck.distillation.diagnostics.held_out import HeldOutProbe
from limbeck.distillation.diagnostics.probe import Probe, log_warnings
from limbeck.distillation.initialization.from_experts import merge_experts
from limbeck.distillation.initialization.from_weights import copy_matching_weights, open_source
from limbeck.distillation.on_policy import OnPolicyBatches
from limbeck.distillation.teachers.base import Teacher
from limbeck.distillation.teachers.offloading import move_unless_offloaded
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.adapters import add_adapter, merge_adapter
from limbeck.models.batch import Batch
from limbeck.models.chat_tokens import end_token_ids
from limbeck.models.checkpoints import open_start
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import ObjectiveConfig
from limbeck.stages.config.distill import Config
from limbeck.training.distributed.ranks import place
from limbeck.training.early_stopping import make_stopper
from limbeck.training.finish import save_trained
from limbeck.training.loop import fit

DIAGNOSTIC_RECORDS = 32
"""Records of the checks before and after training, at most."""
DIAGNOSTIC_LOGIT_BYTES = 2**27
"""Of their logits in float32, at most: with a large vocabulary fewer records are used."""
HELD_OUT_RECORDS = 256
"""Validation records whose written answers teacher and student are compared on, at most."""
EXPERT_USAGE_STEPS = 8
"""Steps whose batches decide which of the teacher's experts are used most."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the student's checkpoint and its training curve."""
    artifact = work.one("corpus")
    config.on_policy.check_teachers(work.inputs.get("teacher", ()))
    tokenizer, student = open_start(config.student, work=work, field="student", seed=config.seed)
    place(student)
    batches = Batches(
        Corpus(artifact.path),
        tokenizer=tokenizer,
        config=config.batching,
        image_format=image_format(student.config),
    )
    inherited = _initialize(student, tokenizer, config=config, work=work, batches=batches)
    teacher = open_teacher(
        work.inputs.get("teacher", ()),
        names=config.teacher_names,
        teachers=config.teachers,
        router_sampling=config.router_sampling,
        corpus=artifact,
        batches=batches,
        needs=config.objective.needs(),
    )
    validation = batches.open_validation()
    max_tokens = DIAGNOSTIC_LOGIT_BYTES // (4 * len(tokenizer))
    examples = batches.take(DIAGNOSTIC_RECORDS, max_tokens=max_tokens)
    context = ObjectiveContext(student, teacher=teacher)
    objective = config.objective.resolve_layers(context, batches=[examples])
    diagnostics = None
    if config.diagnostics == "on":
        diagnostics = Diagnostics(
            Probe(
                objective,
                student,
                teacher,
                examples,
                (validation or batches).take(DIAGNOSTIC_RECORDS, max_tokens=max_tokens),
                tokenizer_tokens=len(tokenizer),
                show_token=lambda token: str(tokenizer.convert_ids_to_tokens(token)),
                fresh=not isinstance(config.student, str) and not config.initialize_from,
            ),
            HeldOutProbe(
                objective,
                student,
                teacher,
                examples,
                () if validation is None else tuple(validation.sample(HELD_OUT_RECORDS)),
            ),
        )
        diagnostics.before()
    on_policy_batches = _sample_on_policy(student, config=config, batches=batches, teacher=teacher)
    if config.lora is not None:
        add_adapter(student, config=config.lora)
    training = config.training.resolve_steps(tokens_per_step=batches.records.tokens_per_step)
    stopper = make_stopper(training, held_out=batches.validation)
    history = fit(
        student,
        batches=on_policy_batches or batches,
        objective=objective.build(context),
        config=training,
        state=work.state,
        title=work.name,
        on_step=work.on_step,
        stateful=on_policy_batches,
        stopper=stopper,
    )
    if on_policy_batches is not None:
        history = on_policy_batches.add_generation_stats(history)
    live_model = None
    if teacher is not None:
        teacher.close()
        live_model = teacher.live_model
    adapter = merge_adapter(student, config=config.lora, folder=work.folder) if config.lora else {}
    metrics = save_trained(
        student,
        tokenizer=tokenizer,
        history=history,
        max_steps=training.max_steps,
        stopper=stopper,
        held_out=batches.validation(),
        folder=work.folder,
    )
    return {
        "warnings": [] if diagnostics is None else diagnostics.after(on_policy_batches),
        **metrics,
        **({} if diagnostics is None else {"teacher_on_held_out": diagnostics.figures}),
        **adapter,
        "parameters": sum(item.numel() for item in student.parameters()),
        "truncated_records": batches.records.num_truncated,
        **({} if on_policy_batches is None else on_policy_batches.generation_metrics()),
        **inherited,
        **_name_layers(config, objective),
        **_report_expert_gap(
            student, live_model, batches.validation(), vocab=len(tokenizer), work=work
        ),
    }


@dataclass
class Diagnostics:
    """What is measured before and after training, with the warnings and figures so far."""

    probe: Probe
    held_out: HeldOutProbe
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, object]] = field(default_factory=dict)
    """Of the teacher on held-out records."""

    def before(self) -> None:
        """Measure before the first step; weights that are random know less than any teacher."""
        self.warnings += self.probe.before()
        self.figures["before"] = {}
        if not self.probe.fresh:
            self._check_held_out("before")

    def after(self, on_policy_batches: OnPolicyBatches | None) -> list[str]:
        """Measure after the last step; all warnings."""
        self.warnings += self.probe.after()
        self.warnings += [] if on_policy_batches is None else on_policy_batches.warn()
        self._check_held_out("after")
        return self.warnings

    def _check_held_out(self, when: Literal["before", "after"]) -> None:
        found, self.figures[when] = self.held_out.check(when=when)
        self.warnings += log_warnings(found, when=f"{when} training")


def _sample_on_policy(
    student: PreTrainedModel, *, config: Config, batches: Batches, teacher: Teacher | None
) -> OnPolicyBatches | None:
    """The batches whose answers the student writes on some steps; None where on none."""
    if not config.on_policy.ratio:
        return None
    assert teacher is not None
    return config.on_policy.build(
        model=student,
        records=batches.records,
        written=batches,
        max_tokens=config.batching.max_length,
        split=partial(split_by_length, config=config.batching),
        vocab=teacher.vocab,
        end_ids=end_token_ids(batches.tokenizer),
        pad_id=batches.pad,
        seed=config.training.seed,
    )


def _report_expert_gap(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    batches: Iterator[Batch],
    *,
    vocab: int,
    work: Work,
) -> dict[str, object]:
    """Write `router.json`: how far the student is from each expert of a live teacher."""
    if teacher is None:
        return {}
    move_unless_offloaded(teacher, student.device)
    gap = measure_expert_gap(student, teacher, batches, vocab=vocab)
    if gap is None:
        return {}
    (work.folder / "router.json").write_text(json.dumps(gap))
    return {"missed": {"kl": gap["kl"], "most": find_largest_gap(gap)}}


def _name_layers(config: Config, objective: ObjectiveConfig) -> dict[str, object]:
    """Student and teacher layer of each matched pair, where the recipe left them to a map."""
    if objective == config.objective:
        return {}
    pairs = [(pair.student_layer, pair.teacher_layer) for pair in objective.matched_features]
    return {"matched_layers": pairs}


def _initialize(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    config: Config,
    work: Work,
    batches: Batches,
) -> dict[str, object]:
    """What of the student's parameters it takes over, as metrics: a share, and which experts."""
    if not config.initialize_from:
        return {"inherited_ratio": 0.0}
    source = work.one("initialize_from").path
    model = open_source(source, tokenizer=tokenizer)
    assert not isinstance(config.student, str)
    inherited = copy_matching_weights(
        student, teacher=model, keep_rotary=config.student.sets_rotary
    )
    if config.initialize_experts == "none":
        return inherited.metrics()
    examples = (batch for step in range(EXPERT_USAGE_STEPS) for batch in batches(step))
    taken = merge_experts(student, teacher=model, batches=examples)
    return inherited.metrics() | {
        "inherited_ratio": inherited.ratio + taken["copied_ratio"],
        "experts": taken["experts"],
        "experts_gate_weight_ratios": taken["gate_weight_ratios"],
    }
