"""Checkpoint and corpus, perhaps a teacher, to a checkpoint in a number format, trained for it."""

from torch import nn

from limbeck.contracts.artifacts import Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.parity import Tolerance, compare_logits
from limbeck.data.loading.batches import Batches, validation_batches
from limbeck.distillation.teachers.open import open_teacher
from limbeck.env.ranks import process_index
from limbeck.evaluation.calibration import make_policy
from limbeck.models.checkpoints import load_model, load_tokenizer
from limbeck.models.logit_parity import compute_logits
from limbeck.models.vision.configuration import image_format
from limbeck.objectives.base import ObjectiveContext
from limbeck.quantization.qat import convert, prepare_for_qat
from limbeck.runtimes import open_answerer
from limbeck.stages.config.quantize import Config
from limbeck.training.finish import save_trained
from limbeck.training.loop import fit

TOLERANCE = Tolerance(measure="max_logit_difference", limit=1e-3)
"""Between the model as trained and its codes: float32 rounding."""


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the quantized checkpoint and its training curve.

    Raises:
        ParityError: the converted model differs from the one that was trained.
    """
    artifact = work.one("corpus")
    corpus = Corpus(artifact.path)
    start = work.one("checkpoint").path
    tokenizer, model = load_tokenizer(start), load_model(start)
    image_input = image_format(model.config)
    batches = Batches(corpus, tokenizer=tokenizer, config=config.batching, image_format=image_input)
    teacher = open_teacher(
        work.inputs.get("teacher", ()),
        corpus=artifact,
        batches=batches,
        needs=config.objective.needs(),
    )
    training = config.training.resolve_steps(tokens_per_step=batches.tokens_per_step)
    prepare_for_qat(model, number_format=config.scheme)
    history = fit(
        model,
        batches=batches,
        objective=config.objective.build(ObjectiveContext(model, teacher=teacher)),
        config=training,
        state=work.state,
        title=work.name,
        on_step=work.on_step,
    )
    nn.Module.to(model, "cpu")
    probe = batches.batch(batches.record_ids[:8].tolist()).input_ids
    trained = compute_logits(model, input_ids=probe)
    model = convert(model, number_format=config.scheme)
    difference = compare_logits([(trained, compute_logits(model, input_ids=probe))])
    difference.check(
        TOLERANCE,
        fault="the converted model's logits differ from those of the trained one",
        advice="Keep the float checkpoint and report this",
    )
    metrics = save_trained(
        model,
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
    metrics["parity_logit_difference"] = difference.max_logit_difference
    if process_index() == 0:  # the others' folders are thrown away
        answerer = open_answerer(work.folder, num_threads=1)
        policy = make_policy(answerer, corpus, config=config.calibration)
        policy.write(work.folder)
        metrics |= policy.metrics()
    return metrics
