"""Checkpoint and corpus to a checkpoint of smaller shapes; heal it with a `distill` entry."""

import logging
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Work
from limbeck.contracts.config import resolve
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.parity import Tolerance
from limbeck.contracts.registry import CRITERIA
from limbeck.data.loading.batches import Batches, validation_batches
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.checkpoints import load_model, load_tokenizer
from limbeck.models.logit_parity import compare_models
from limbeck.models.structure import Groups, find_channels, find_heads
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.pruning.allocation import KeptGroups, pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import Criterion, score_groups
from limbeck.pruning.group_lasso import Regulariser, count_zero
from limbeck.pruning.shapes import count_kept
from limbeck.pruning.surgery import cut, mask
from limbeck.stages.config.prune import Config
from limbeck.training.finish import save_trained
from limbeck.training.loop import fit
from limbeck.training.lr_schedule import cosine_lr

logger = logging.getLogger(__name__)
PROBE_RECORDS = 8
"""Training records on which the cut model is compared with the masked one."""
TOLERANCE = Tolerance(measure="max_logit_difference / max_logit", limit=1e-5)
"""Between the cut and the masked model: sums in another order, in float32."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the smaller checkpoint and its training curve.

    Raises:
        CheckpointError: the architecture cannot be cut, or so small a share of it.
        ParityError: the cut model differs from the masked one.
    """
    artifact = work.one("corpus")
    corpus = Corpus(artifact.path)
    start = work.one("checkpoint").path
    tokenizer, model = load_tokenizer(start), load_model(start)
    image_input = image_format(model.config)
    num_kept = plan_cut(model, config=config)
    batches = Batches(corpus, tokenizer=tokenizer, config=config.batching, image_format=image_input)
    teacher = open_teacher(
        work.inputs.get("teacher", ()),
        corpus=artifact,
        batches=batches,
        needs=config.objective.needs(),
    )
    training = config.training.resolve_steps(tokens_per_step=batches.tokens_per_step)
    history = fit(
        model,
        batches=batches,
        objective=config.objective.build(ObjectiveContext(model, teacher=teacher)),
        config=training,
        state=work.state,
        title=work.name,
        on_step=work.on_step,
        after_step=make_regulariser(
            model, num_kept=num_kept, config=config.replace(training=training)
        ),
    )
    model.cpu()
    probe = batches.batch(batches.record_ids[:PROBE_RECORDS].tolist()).input_ids
    criterion: Criterion = resolve(CRITERIA, config.criterion, what="criterion")()
    calibrations = calibrate(
        model,
        layers=list(num_kept),
        batches=(batches(step)[0] for step in range(config.calibration_batches)),
        needs=criterion.needs,
    )
    scores = {
        groups: score_groups(model, groups=groups, criterion=criterion, calibration=calibration)
        for groups, calibration in calibrations.items()
    }
    smaller, metrics = cut_zeros(model, num_kept=num_kept, scores=scores, input_ids=probe)
    trained = save_trained(
        smaller,
        tokenizer=tokenizer,
        history=history,
        steps=training.max_steps,
        held_out=validation_batches(
            corpus,
            tokenizer=tokenizer,
            config=config.batching,
            image_format=image_input,
        ),
        folder=work.folder,
    )
    return trained | metrics


def plan_cut(model: PreTrainedModel, *, config: Config) -> dict[Groups, int]:
    """How many groups stay in each layer that is cut."""
    found: list[tuple[Groups, float, int]] = []
    if config.channels_ratio:
        found += [
            (groups, config.channels_ratio, config.multiple) for groups in find_channels(model)
        ]
    if config.heads_ratio:
        found += [(groups, config.heads_ratio, 1) for groups in find_heads(model)]
    return {
        groups: count_kept(groups.num_groups, ratio=ratio, multiple=multiple, kind=groups.kind)
        for groups, ratio, multiple in found
    }


def make_regulariser(
    model: PreTrainedModel, *, num_kept: Mapping[Groups, int], config: Config
) -> Callable[[int, float], None]:
    """The proximal step for the training loop, under the loop's own learning rates."""
    training = config.training
    lrs = [
        cosine_lr(
            step,
            steps=training.max_steps,
            peak_lr=training.learning_rate,
            warmup_steps=training.warmup_steps,
            final_ratio=training.min_lr_rate,
        )
        for step in range(training.max_steps)
    ]
    num_zero = {groups: groups.num_groups - kept for groups, kept in num_kept.items()}
    return Regulariser(model, num_zero=num_zero, lrs=lrs, config=config.lasso)


def cut_zeros(
    model: PreTrainedModel,
    *,
    num_kept: Mapping[Groups, int],
    scores: Mapping[Groups, Float[Tensor, " groups"]],
    input_ids: torch.Tensor,
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The smaller model, and what the cut took; the given one is masked in place."""
    zero = {groups: count_zero(model, groups=groups) for groups in num_kept}
    kept: KeptGroups = {
        groups: pick_kept(scores[groups], num_kept=count) for groups, count in num_kept.items()
    }
    removed = mask(model, kept=kept)
    smaller = cut(model, kept=kept)
    difference = compare_models(model, smaller, input_ids=input_ids)
    difference.check(
        TOLERANCE,
        fault="the cut model differs from the masked one",
        advice="Its architecture cannot be cut",
    )
    metrics: dict[str, object] = {
        "norm_removed_ratio": removed,
        "parity_error": difference.figure(TOLERANCE.measure),
        "parameters_before": sum(item.numel() for item in model.parameters()),
        "parameters": sum(item.numel() for item in smaller.parameters()),
    }
    for kind in sorted({groups.kind for groups in kept}):
        chosen = [groups for groups in kept if groups.kind == kind]
        total = sum(groups.num_groups for groups in chosen)
        metrics[f"{kind}_before"] = chosen[0].num_groups
        metrics[f"{kind}_kept"] = num_kept[chosen[0]]
        metrics[f"{kind}_cut_ratio"] = 1 - sum(num_kept[groups] for groups in chosen) / total
        metrics[f"{kind}_zero_ratio"] = sum(zero[groups] for groups in chosen) / total
    logger.info("cut %s", {name: value for name, value in metrics.items() if "ratio" in name})
    return smaller, metrics
