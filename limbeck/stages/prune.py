"""Checkpoint and corpus to a checkpoint of smaller shapes; heal it with a `distill` entry."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Work
from limbeck.contracts.config import resolve
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.registry import CRITERIA
from limbeck.data.loading.batches import Batches
from limbeck.distillation.teachers.open import open_teacher
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import measure_kl
from limbeck.models.structure import Groups, find_channels, find_heads, find_layers
from limbeck.models.tokenizers import load_reader
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.pruning.allocation import KeptGroups, pick_kept
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import Criterion, score_groups
from limbeck.pruning.cuts import CutModel, cut_depth, cut_experts, cut_groups, cut_width
from limbeck.pruning.depth import measure_influence
from limbeck.pruning.experts import find_experts
from limbeck.pruning.group_lasso import Regulariser
from limbeck.pruning.kept_parts import KeptParts
from limbeck.pruning.rebuild import check_config
from limbeck.pruning.reconstruction import reconstruct
from limbeck.pruning.shapes import check_picks, count_kept, count_left, describe_cut
from limbeck.pruning.surgery import find_rows
from limbeck.pruning.width import find_stream, score_channels
from limbeck.stages.config.prune import Config
from limbeck.training.config import TrainingConfig
from limbeck.training.finish import keep_trained, save_trained
from limbeck.training.loop import History, fit
from limbeck.training.lr_schedule import find_lr

logger = logging.getLogger(__name__)
LEAST_KL = 1e-6
"""In nats: a cut that costs no more than rounding leaves nothing to fit."""
PROBE_RECORDS = 8
"""Training records on which the cut model is compared with the masked one."""
HELD_OUT_RECORDS = 32
"""Validation records on which a cut model is compared with the uncut one. Without any, they are
training records, a quarter of them at most, to which nothing is fitted."""


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
    probe = batches.batch(batches.records.ids[:PROBE_RECORDS].tolist())
    with keep_trained(model, tokenizer=tokenizer, work=work):
        cut = cut_model(
            copy.deepcopy(model),
            config=config,
            num_kept=num_kept,
            calibration=calibration,
            input_ids=probe.input_ids,
        )
        reconstructed = reconstruct_checked(model, cut=cut, config=config, batches=batches)
    trained = save_trained(
        reconstructed.model,
        tokenizer=tokenizer,
        history=history,
        max_steps=num_steps,
        held_out=batches.validation(),
        folder=work.folder,
    )
    return trained | cut.metrics | reconstructed.metrics


@dataclass
class Cuts:
    """A model that gets smaller cut after cut, what these took, and what they have left."""

    model: PreTrainedModel
    kept: KeptParts
    metrics: dict[str, object]

    def add(self, made: CutModel, *, kept: KeptParts) -> None:
        """Go on from a smaller model."""
        self.model, self.kept = made.model, kept
        self.metrics |= made.metrics


def cut_model(
    model: PreTrainedModel,
    *,
    config: Config,
    num_kept: Mapping[Groups, int],
    calibration: Sequence[Batch],
    input_ids: Tensor,
) -> Cuts:
    """The smaller model, and what each cut took; the given one is masked in place.

    Channels and heads go first, then experts, layers and width: each is scored on what is left.
    """
    text = model.config.get_text_config()
    whole = KeptParts(range(len(find_layers(model)[1])), range(text.hidden_size))
    cuts = Cuts(model, whole, {"parameters_before": count_parameters(model)})
    if num_kept:
        groups = pick_groups(
            model, num_kept=num_kept, criterion=config.criterion, calibration=calibration
        )
        kept = replace(cuts.kept, rows=find_rows(model, kept=groups))
        cuts.add(cut_groups(model, kept=groups, input_ids=input_ids), kept=kept)
    if config.experts_ratio:
        layers = find_experts(cuts.model)
        num_experts = keep_experts(layers, config=config)
        groups = pick_groups(
            cuts.model,
            num_kept=dict.fromkeys(layers, num_experts),
            criterion=config.experts_criterion,
            calibration=calibration,
        )
        cuts.add(cut_experts(cuts.model, kept=groups, input_ids=input_ids), kept=cuts.kept)
    if config.layers_ratio:
        stay = pick_layers(cuts.model, config=config, calibration=calibration)
        made = cut_depth(cuts.model, kept=stay, input_ids=input_ids)
        cuts.add(made, kept=replace(cuts.kept, layers=stay))
    if config.hidden_ratio:
        stream = find_stream(cuts.model)
        scores = score_channels(cuts.model, stream=stream, batches=calibration)
        stay = pick_kept(scores, num_kept=keep_width(stream.width, config=config))
        made = cut_width(
            cuts.model, stream=stream, kept=stay, batches=calibration, input_ids=input_ids
        )
        cuts.add(made, kept=replace(cuts.kept, channels=stay))
    cuts.metrics["parameters"] = count_parameters(cuts.model)
    taken = {name: value for name, value in cuts.metrics.items() if "ratio" in name}
    logger.info("cut %s", taken)
    return cuts


def reconstruct_checked(
    uncut: PreTrainedModel, *, cut: Cuts, config: Config, batches: Batches
) -> CutModel:
    """The cut model with its weights fitted to the uncut one, and how far both are from it.

    Where the fit does not bring it nearer on held-out records, it stays as it was cut.
    """
    validation = batches.open_validation()
    skip = 0 if validation else min(HELD_OUT_RECORDS, len(batches.records.ids) // 4)
    held_out = list(validation.sample(HELD_OUT_RECORDS) if validation else batches.sample(skip))
    before = measure_kl(uncut, cut.model, batches=held_out)
    # Groups that training took to zero are not missed.
    if config.reconstruction is None or before <= LEAST_KL:
        return CutModel(cut.model, {"kl_to_uncut": before})
    num_records = config.reconstruction.num_records
    fitted = copy.deepcopy(cut.model)
    layers = reconstruct(
        fitted,
        uncut=uncut,
        kept=cut.kept,
        batches=list(batches.sample(num_records, skip=skip)),
        damping_ratio=config.reconstruction.damping_ratio,
    )
    after = measure_kl(uncut, fitted, batches=held_out)
    metrics = {**layers.metrics(), "kl_to_uncut_as_cut": before, "kl_to_uncut": after}
    if after <= before:
        return CutModel(fitted, metrics)
    logger.warning(
        "reconstruction: on held-out records the fitted model is %.3g nats from the uncut one, and "
        "the cut one %.3g: it stays as it was cut; set `reconstruction.num_records` higher than "
        "%d, or `reconstruction: null`",
        after,
        before,
        num_records,
    )
    return CutModel(cut.model, metrics | {"reconstructed_layers": 0, "kl_to_uncut": before})


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


def pick_groups(
    model: PreTrainedModel,
    *,
    num_kept: Mapping[Groups, int],
    criterion: str,
    calibration: Sequence[Batch],
) -> KeptGroups:
    """The groups of each layer that score highest."""
    scorer: Criterion = resolve(CRITERIA, criterion, what="criterion")()
    found = calibrate(model, layers=list(num_kept), batches=calibration, needs=scorer.needs)
    kept = {}
    for groups, item in found.items():
        scores = score_groups(model, groups=groups, criterion=scorer, calibration=item)
        kept[groups] = pick_kept(scores, num_kept=num_kept[groups])
    return kept


def pick_layers(
    model: PreTrainedModel, *, config: Config, calibration: Sequence[Batch]
) -> tuple[int, ...]:
    """The layers of most influence; the first and the last always stay."""
    influence = measure_influence(model, batches=calibration)
    num_kept = keep_layers(len(influence), config=config)
    influence[[0, -1]] = float("inf")
    return pick_kept(influence, num_kept=num_kept)


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
