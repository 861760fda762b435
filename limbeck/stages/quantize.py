"""Checkpoint and corpus, perhaps a teacher, to a checkpoint in a number format, trained for it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ParityError
from limbeck.contracts.parity import LogitDifference, compare_logits
from limbeck.data.loading.batches import Batches
from limbeck.distillation.teachers.open import open_teacher
from limbeck.env.ranks import process_index
from limbeck.evaluation.calibration import make_policy
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.gptq.rounding import RoundedLayers, round_by_gptq
from limbeck.models.logit_parity import compute_logits
from limbeck.models.mixed_precision.choice import choose_layers
from limbeck.models.rounding_costs import RoundingCosts, measure_costs
from limbeck.models.smoothing.smooth import smooth
from limbeck.models.tokenizers import load_reader, load_tokenizer
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.layers import set_rounded_ratio, unrounded_activations
from limbeck.quantization.qat import (
    convert,
    count_layers,
    find_rounded_ratio,
    prepare_for_qat,
    restore_float,
)
from limbeck.runtimes import open_answerer
from limbeck.stages.config.quantize import Config
from limbeck.training.early_stopping import make_stopper
from limbeck.training.finish import save_trained
from limbeck.training.loop import fit

PROBE_RECORDS = 8
PROBE_TOKENS = 64
"""Training records on which the converted model is compared with the trained one, and their first
tokens: logits of a large vocabulary would fill the memory else."""
BLOCK_RECORDS = 2
"""Of these, those on which every block, and every layer for its format, is rounded alone."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the quantized checkpoint and its training curve.

    Raises:
        ParityError: the converted model differs from the one that was trained.
    """
    artifact = work.one("corpus")
    corpus = Corpus(artifact.path)
    start = work.one("checkpoint").path
    tokenizer, model = load_reader(start, corpus=corpus), load_model(start)
    batches = Batches(
        corpus,
        tokenizer=tokenizer,
        config=config.batching,
        image_format=image_format(model.config),
    )
    teacher = open_teacher(
        work.inputs.get("teacher", ()),
        corpus=artifact,
        batches=batches,
        needs=config.objective.needs(),
    )
    training = config.training.resolve_steps(tokens_per_step=batches.records.tokens_per_step)
    probe = batches.batch(batches.records.ids[:PROBE_RECORDS].tolist()).input_ids[:, :PROBE_TOKENS]
    started = compute_logits(model, input_ids=probe)
    prepared = prepare(model, config=config, batches=batches, input_ids=probe)
    stopper = make_stopper(training, held_out=batches.validation)

    def round_gradually(trained: nn.Module, progress: float) -> None:
        ratio = find_rounded_ratio(progress, annealing_ratio=config.annealing_ratio)
        set_rounded_ratio(trained, ratio)

    history = fit(
        model,
        batches=batches,
        objective=config.objective.build(ObjectiveContext(model, teacher=teacher)),
        config=training,
        state=work.state,
        title=work.name,
        before_step=round_gradually,
        on_step=work.on_step,
        stopper=stopper,
    )
    nn.Module.to(model, "cpu")
    converted = convert_checked(
        model, number_format=prepared.scheme, input_ids=probe, start=start, work=work
    )
    metrics = save_trained(
        converted.model,
        tokenizer=tokenizer,
        history=history,
        max_steps=training.max_steps,
        stopper=stopper,
        held_out=batches.validation(),
        folder=work.folder,
    )
    metrics["layers_by_format"] = count_layers(converted.model)
    metrics |= prepared.metrics()
    metrics["parity_logit_difference"] = converted.difference.max_logit_difference
    metrics["kl_to_floats"] = converted.kl_to_floats
    metrics["kl_to_start"] = compare_logits([(started, converted.logits)]).mean_kl
    if process_index() == 0:  # the others' folders are thrown away
        (work.folder / "rounding.json").write_text(json.dumps(prepared.costs.describe(), indent=2))
        answerer = open_answerer(work.folder, num_threads=1)
        policy = make_policy(answerer, corpus, config=config.calibration)
        policy.write(work.folder)
        metrics |= policy.metrics()
    return metrics


@dataclass(frozen=True)
class Prepared:
    """What was done to a model before it is trained for its number format, and what that costs."""

    scheme: QuantizedFormat
    """With the layers that get another format."""
    num_smoothed: int
    """Pairs of layers."""
    costs: RoundingCosts
    """Of the nearest codes."""
    rounded: RoundedLayers

    def metrics(self) -> dict[str, object]:
        """What was smoothed and chosen, and the costly parts by name."""
        return {
            "smoothed_pairs": self.num_smoothed,
            **self.rounded.metrics(),
            **self.costs.metrics(),
        }


def prepare(
    model: PreTrainedModel,
    *,
    config: Config,
    batches: Batches,
    input_ids: Int[Tensor, "prompts tokens"],
) -> Prepared:
    """Smooth a float model, choose formats of layers and codes, and have it round from here on.

    In place; the tokens are those on which models are compared.
    """
    num_smoothed = 0
    if (smoothing := config.resolve_smoothing()) is not None:
        num_smoothed = smooth(
            model,
            batches=batches.sample(smoothing.num_records),
            strength=smoothing.migration_strength,
            input_ids=input_ids,
        )
    scheme, few = config.scheme, input_ids[:BLOCK_RECORDS]
    if (mixed := config.mixed_precision) is not None:
        scheme = choose_layers(model, number_format=scheme, config=mixed, input_ids=few)
    costs = measure_costs(
        model, number_format=scheme, batches=batches.sample(PROBE_RECORDS), input_ids=few
    )
    rounded = RoundedLayers()
    if (gptq := config.resolve_gptq()) is not None:
        rounded = round_by_gptq(
            model,
            batches=batches.sample(gptq.num_records),
            number_format=scheme,
            damping_ratio=gptq.damping_ratio,
        )
    prepare_for_qat(model, number_format=scheme)
    return Prepared(scheme, num_smoothed, costs, rounded)


@dataclass(frozen=True)
class Converted:
    """A model in its number format, and how far it is from what it was."""

    model: PreTrainedModel
    logits: Float[np.ndarray, "prompts tokens vocab"]
    difference: LogitDifference
    """From the model that rounded while it was trained."""
    kl_to_floats: float
    """KL(trained weights as floats || codes), in nats: what rounding these costs."""


def convert_checked(
    model: PreTrainedModel,
    *,
    number_format: QuantizedFormat,
    input_ids: Int[Tensor, "prompts tokens"],
    start: Path,
    work: Work,
) -> Converted:
    """The prepared and trained model as codes; what it was trained from gives the shape of a copy.

    Raises:
        ParityError: the codes answer differently; the trained weights are kept as a checkpoint.
    """
    trained = compute_logits(model, input_ids=input_ids)
    with unrounded_activations(model):
        unrounded = compute_logits(model, input_ids=input_ids)
    restore_float(model)
    floats = compute_logits(model, input_ids=input_ids)
    weights = model.state_dict()
    model = convert(model, number_format=number_format)
    stored = compute_logits(model, input_ids=input_ids)
    difference = compare_logits([(trained, stored)]).with_rounding(
        original=compare_logits([(unrounded, trained)]),
        copy=compare_logits([(unrounded, stored)]),
    )
    try:
        difference.check(
            number_format.tolerance,
            fault="the converted model's logits differ from those of the trained one",
            advice="Report this",
        )
    except ParityError as error:
        folder = work.state / "trained"
        kept = load_model(start)
        kept.load_state_dict(weights)
        save_checkpoint(kept, tokenizer=load_tokenizer(start), folder=folder)
        raise ParityError(
            f"{error}. The trained weights are kept as floats: an entry can name {folder} as its "
            "`checkpoint`"
        ) from None
    kl_to_floats = compare_logits([(floats, stored)]).mean_kl
    return Converted(model, stored, difference, kl_to_floats)
