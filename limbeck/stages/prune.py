"""Checkpoint and corpus to a checkpoint of smaller shapes; heal it with a `distill` entry."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Work
from limbeck.contracts.config import resolve
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.parity import LogitDifference, compare_logits
from limbeck.contracts.registry import CRITERIA
from limbeck.data.loading.batches import Batches
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import compare_models, compute_logits, tolerance_of
from limbeck.models.structure import Groups, find_channels, find_heads, find_layers
from limbeck.models.tokenizers import load_reader
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.pruning.allocation import KeptGroups, pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import Criterion, score_groups
from limbeck.pruning.depth import bypass, cut_layers, measure_influence
from limbeck.pruning.experts import find_experts, route_to
from limbeck.pruning.group_lasso import Regulariser, count_zero
from limbeck.pruning.rebuild import check_config
from limbeck.pruning.shapes import check_picks, count_kept, count_left, describe_cut
from limbeck.pruning.surgery import cut, mask
from limbeck.pruning.width import (
    cut_stream,
    find_stream,
    mask_stream,
    measure_kept_norms,
    score_channels,
)
from limbeck.stages.config.prune import Config
from limbeck.training.config import TrainingConfig
from limbeck.training.finish import keep_trained, save_trained
from limbeck.training.loop import History, fit
from limbeck.training.lr_schedule import find_lr

logger = logging.getLogger(__name__)
PROBE_RECORDS = 8
"""Training records on which the cut model is compared with the masked one."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the smaller checkpoint and its training curve.

    Raises:
        CheckpointError: the architecture cannot be cut, or so small a share of it.
        ParityError: the cut model differs from the masked one.
    """
    artifact = work.one("corpus")
    corpus = Corpus(artifact.path)
    start = work.one("checkpoint").path
    tokenizer, model = load_reader(start, corpus=corpus), load_model(start)
    config = config.resolve_budget(model.config)
    num_kept = plan_cut(model, config=config)
    plan_coarse_cut(model, config=config)
    batches = Batches(
        corpus,
        tokenizer=tokenizer,
        config=config.batching,
        image_format=image_format(model.config),
    )
    history: History = []
    num_steps = 0
    if config.training is not None:
        teacher = open_teacher(
            work.inputs.get("teacher", ()),
            corpus=artifact,
            batches=batches,
            needs=config.objective.needs(),
        )
        training = config.training.resolve_steps(tokens_per_step=batches.records.tokens_per_step)
        num_steps = training.max_steps
        history = fit(
            model,
            batches=batches,
            objective=config.objective.build(ObjectiveContext(model, teacher=teacher)),
            config=training,
            state=work.state,
            title=work.name,
            on_step=work.on_step,
            after_step=make_regulariser(model, num_kept=num_kept, training=training, config=config),
        )
    model.cpu()
    calibration = [batches(step)[0] for step in range(config.calibration_batches)]
    probe = batches.batch(batches.records.ids[:PROBE_RECORDS].tolist()).input_ids
    with keep_trained(model, tokenizer=tokenizer, work=work):
        smaller, metrics = cut_model(
            copy.deepcopy(model),
            config=config,
            num_kept=num_kept,
            calibration=calibration,
            input_ids=probe,
        )
    trained = save_trained(
        smaller,
        tokenizer=tokenizer,
        history=history,
        max_steps=num_steps,
        held_out=batches.validation(),
        folder=work.folder,
    )
    return trained | metrics


def cut_model(
    model: PreTrainedModel,
    *,
    config: Config,
    num_kept: Mapping[Groups, int],
    calibration: Sequence[Batch],
    input_ids: Tensor,
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The smaller model, and what each cut took; the given one is masked in place.

    Channels and heads go first, then experts, layers and width: each is scored on what is left.
    """
    metrics: dict[str, object] = {"parameters_before": count_parameters(model)}
    if num_kept:
        scores = score_all(
            model, layers=list(num_kept), criterion=config.criterion, calibration=calibration
        )
        model, found = cut_zeros(model, num_kept=num_kept, scores=scores, input_ids=input_ids)
        metrics |= found
    if config.experts_ratio:
        model, found = cut_experts(
            model, config=config, calibration=calibration, input_ids=input_ids
        )
        metrics |= found
    if config.layers_ratio:
        model, found = cut_depth(model, config=config, calibration=calibration, input_ids=input_ids)
        metrics |= found
    if config.hidden_ratio:
        model, found = cut_width(model, config=config, calibration=calibration, input_ids=input_ids)
        metrics |= found
    metrics["parameters"] = count_parameters(model)
    logger.info("cut %s", {name: value for name, value in metrics.items() if "ratio" in name})
    return model, metrics


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


def plan_coarse_cut(model: PreTrainedModel, *, config: Config) -> None:
    """Refuse what `plan_cut` has not, before anything is trained: layers, widths, all together.

    Raises:
        CheckpointError: the architecture cannot be cut, or so small a share of it, or transformers
            would not load what is left.
    """
    text = model.config.get_text_config()
    if config.experts_ratio:
        num_experts = keep_experts(find_experts(model), config=config)
        check_picks(text, num_experts=num_experts)
    if config.layers_ratio:
        keep_layers(len(find_layers(model)[1]), config=config)
    if config.hidden_ratio:
        keep_width(find_stream(model).width, config=config)
    num_kept = count_left(text, shares=config.shares)
    check_config(describe_cut(model.config, num_kept=num_kept))


def keep_experts(layers: Sequence[Groups], *, config: Config) -> int:
    """How many experts of each layer stay."""
    return count_kept(layers[0].num_groups, ratio=config.experts_ratio, multiple=1, kind="experts")


def keep_layers(num_layers: int, *, config: Config) -> int:
    """How many layers stay."""
    return count_kept(num_layers, ratio=config.layers_ratio, multiple=1, kind="layers")


def keep_width(width: int, *, config: Config) -> int:
    """How many channels of the residual stream stay."""
    return count_kept(width, ratio=config.hidden_ratio, multiple=config.multiple, kind="hidden")


def count_parameters(model: PreTrainedModel) -> int:
    """All parameters, shared ones once."""
    return sum(item.numel() for item in model.parameters())


def score_all(
    model: PreTrainedModel,
    *,
    layers: Sequence[Groups],
    criterion: str,
    calibration: Sequence[Batch],
) -> dict[Groups, Float[Tensor, " groups"]]:
    """The score of every group of every layer."""
    scorer: Criterion = resolve(CRITERIA, criterion, what="criterion")()
    found = calibrate(model, layers=layers, batches=calibration, needs=scorer.needs)
    return {
        groups: score_groups(model, groups=groups, criterion=scorer, calibration=item)
        for groups, item in found.items()
    }


def cut_experts(
    model: PreTrainedModel, *, config: Config, calibration: Sequence[Batch], input_ids: Tensor
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The mixture without the experts of lowest score, and without their rows of the router."""
    layers = find_experts(model)
    scores = score_all(
        model, layers=layers, criterion=config.experts_criterion, calibration=calibration
    )
    before, num_kept = layers[0].num_groups, keep_experts(layers, config=config)
    kept = {groups: pick_kept(scores[groups], num_kept=num_kept) for groups in layers}
    smaller = cut(model, kept=kept)
    with route_to(model, kept=kept):
        difference = compare_models(model, smaller, input_ids=input_ids)
    _check(difference, model=model, what="experts")
    return smaller, {
        "experts_before": before,
        "experts_kept": num_kept,
        "experts_cut_ratio": 1 - num_kept / before,
    }


def cut_depth(
    model: PreTrainedModel, *, config: Config, calibration: Sequence[Batch], input_ids: Tensor
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The model without the layers of least influence; the first and the last always stay."""
    influence = measure_influence(model, batches=calibration)
    num_layers = len(influence)
    influence[[0, -1]] = float("inf")
    kept = pick_kept(influence, num_kept=keep_layers(num_layers, config=config))
    gone = [index for index in range(num_layers) if index not in kept]
    with bypass(model, layers=gone):
        expected = compute_logits(model, input_ids=input_ids)
    smaller = cut_layers(model, kept=kept)
    difference = compare_logits([(expected, compute_logits(smaller, input_ids=input_ids))])
    _check(difference, model=model, what="layers")
    return smaller, {
        "layers_before": num_layers,
        "layers_kept": list(kept),
        "layers_cut_ratio": len(gone) / num_layers,
    }


def cut_width(
    model: PreTrainedModel, *, config: Config, calibration: Sequence[Batch], input_ids: Tensor
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The model with a narrower residual stream; the given one is masked in place."""
    stream = find_stream(model)
    scores = score_channels(model, stream=stream, batches=calibration)
    kept = pick_kept(scores, num_kept=keep_width(stream.width, config=config))
    norms = measure_kept_norms(model, stream=stream, kept=kept, batches=calibration)
    mask_stream(model, stream=stream, kept=kept, kept_norms=norms)
    smaller = cut_stream(model, stream=stream, kept=kept)
    _check(compare_models(model, smaller, input_ids=input_ids), model=model, what="width")
    return smaller, {
        "hidden_before": stream.width,
        "hidden_kept": len(kept),
        "hidden_cut_ratio": 1 - len(kept) / stream.width,
    }


def _check(difference: LogitDifference, *, model: PreTrainedModel, what: str) -> None:
    difference.check(
        tolerance_of(model),
        fault=f"the cut model ({what}) differs from the masked one",
        advice=f"{type(model).__name__} cannot be cut so.",
    )


def make_regulariser(
    model: PreTrainedModel,
    *,
    num_kept: Mapping[Groups, int],
    training: TrainingConfig,
    config: Config,
) -> Callable[[int], None]:
    """The proximal step for the training loop, under the loop's own learning rates."""
    lrs = [find_lr(step, config=training) for step in range(training.max_steps)]
    num_zero = {groups: groups.num_groups - kept for groups, kept in num_kept.items()}
    return Regulariser(model, num_zero=num_zero, lrs=lrs, config=config.lasso)


def cut_zeros(
    model: PreTrainedModel,
    *,
    num_kept: Mapping[Groups, int],
    scores: Mapping[Groups, Float[Tensor, " groups"]],
    input_ids: Tensor,
) -> tuple[PreTrainedModel, dict[str, object]]:
    """The smaller model, and what the cut took; the given one is masked in place."""
    zero = {groups: count_zero(model, groups=groups) for groups in num_kept}
    kept: KeptGroups = {
        groups: pick_kept(scores[groups], num_kept=count) for groups, count in num_kept.items()
    }
    removed = mask(model, kept=kept)
    smaller = cut(model, kept=kept)
    difference = compare_models(model, smaller, input_ids=input_ids)
    _check(difference, model=model, what="channels and heads")
    metrics: dict[str, object] = {
        "norm_removed_ratio": removed,
        "parity_error": difference.figure("max_logit_difference / max_logit"),
    }
    for kind in sorted({groups.kind for groups in kept}):
        chosen = [groups for groups in kept if groups.kind == kind]
        total = sum(groups.num_groups for groups in chosen)
        metrics[f"{kind}_before"] = chosen[0].num_groups
        metrics[f"{kind}_kept"] = num_kept[chosen[0]]
        metrics[f"{kind}_cut_ratio"] = 1 - sum(num_kept[groups] for groups in chosen) / total
        metrics[f"{kind}_zero_ratio"] = sum(zero[groups] for groups in chosen) / total
    return smaller, metrics
