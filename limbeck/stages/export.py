"""Export: a checkpoint as a bundle for one runtime, held against the checkpoint."""

import dataclasses
import itertools
import logging

import numpy as np

from limbeck.contracts.answer_policy import AnswerPolicy, read_policy
from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.artifacts import Work
from limbeck.contracts.config import resolve
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.parity import LogitDifference, Tolerance
from limbeck.contracts.registry import FORMATS
from limbeck.evaluation.calibration import make_policy
from limbeck.quantization.layers import unrounded_activations
from limbeck.runtimes import open_answerer, open_runtime
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.bundle import Bundle, Parity, write_bundle
from limbeck.runtimes.chat import read_chat
from limbeck.runtimes.parity import NUM_CACHED_STEPS, compare
from limbeck.runtimes.transformers import TransformersRuntime
from limbeck.stages.config.export import Config

logger = logging.getLogger(__name__)
LONGEST_PROMPT_TOKENS = 64


def run(config: Config, *, work: Work) -> dict[str, object]:
    """Write the bundle into the work folder; its figures of parity.

    Raises:
        ParityError: the bundle's predictions lie too far from the checkpoint's.
    """
    checkpoint = work.one("checkpoint").path
    runtime = open_runtime(config.runtime)
    bundle = runtime.write(checkpoint, work.folder, weights=config.weights)
    reference = TransformersRuntime().open_model(checkpoint, num_threads=1)
    candidate = runtime.open_model(work.folder, num_threads=1)
    prompts = _read_prompts(config, work=work, max_tokens=bundle.max_tokens)
    if not prompts:
        vocab = reference.model.config.get_text_config().vocab_size
        prompts = _make_prompts(config.num_prompts, vocab=vocab, max_tokens=bundle.max_tokens)
    tolerance = _tolerance(config, bundle=bundle, runtime=runtime)
    found = compare(reference, candidate, prompts=prompts)
    if tolerance.measure == "copy_rounding_kl / rounding_kl":
        unrounded = TransformersRuntime().open_model(checkpoint, num_threads=1)
        with unrounded_activations(unrounded.model):
            found = found.with_rounding(
                original=compare(unrounded, reference, prompts=prompts),
                copy=compare(unrounded, candidate, prompts=prompts),
            )
    parity = _check(found, tolerance=tolerance, bundle=bundle, num_prompts=len(prompts))
    parity = parity.replace(**_compare_answers(config, work=work))
    bundle = bundle.replace(parity=parity.model_dump())
    write_bundle(work.folder, bundle)
    policy = _make_policy(config, work=work)
    policy.write(work.folder)
    size = dataclasses.asdict(candidate.size())
    return {"format": bundle.format, "parity": parity.model_dump(), **size, **policy.metrics()}


def _compare_answers(config: Config, *, work: Work) -> dict[str, object]:
    """How many of the corpus's questions bundle and checkpoint answer alike."""
    if not config.num_answers:
        return {}
    records = Corpus(work.one("corpus").path).records("validation")
    prompts = [item.question for item in itertools.islice(records, config.num_answers)]
    bundle, checkpoint = (
        open_answerer(folder, num_threads=1).answer(
            prompts, max_new_tokens=config.calibration.max_new_tokens
        )
        for folder in (work.folder, work.one("checkpoint").path)
    )
    pairs = zip(bundle, checkpoint, strict=True)
    equal = sum(ours.text == theirs.text for ours, theirs in pairs)
    return {"num_answers": len(prompts), "equal_answers_ratio": equal / max(len(prompts), 1)}


def _make_policy(config: Config, *, work: Work) -> AnswerPolicy:
    """Calibrated on the bundle's own drafts; without a corpus, the checkpoint's."""
    if "corpus" not in work.inputs:
        return read_policy(work.one("checkpoint").path)
    answerer = open_answerer(work.folder, num_threads=1)
    return make_policy(answerer, Corpus(work.one("corpus").path), config=config.calibration)


def _read_prompts(config: Config, *, work: Work, max_tokens: int) -> list[list[int]]:
    """Questions with their answers from the corpus, cut to what leaves room for more tokens."""
    if "corpus" not in work.inputs:
        return []
    chat = read_chat(work.folder)
    records = Corpus(work.one("corpus").path).records("validation")
    longest = _longest(max_tokens)
    return [
        [*chat.render(as_prompt(record.question)), *chat.encode(record.answer)][:longest]
        for record in itertools.islice(records, config.num_prompts)
    ]


def _make_prompts(num: int, *, vocab: int, max_tokens: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, _longest(max_tokens), size=num, endpoint=True)
    return [rng.integers(0, vocab, size=length).tolist() for length in lengths]


def _longest(max_tokens: int) -> int:
    return max(1, min(LONGEST_PROMPT_TOKENS, max_tokens - NUM_CACHED_STEPS))


def _tolerance(config: Config, *, bundle: Bundle, runtime: Runtime) -> Tolerance:
    if config.tolerance != "format":
        return config.tolerance
    stated = runtime.weights[config.weights]
    if stated != "format":
        return stated
    if bundle.format == "float32" and bundle.architecture in runtime.rounded_architectures:
        return runtime.rounded_architectures[bundle.architecture]
    return resolve(FORMATS, bundle.format, what="format").tolerance


def _check(
    found: LogitDifference, *, tolerance: Tolerance, bundle: Bundle, num_prompts: int
) -> Parity:
    measure = tolerance.measure
    logger.info(
        "parity of %s: %s %.3g (at most %.3g)",
        bundle.format,
        measure,
        found.figure(measure),
        tolerance.limit,
    )
    found.check(
        tolerance,
        fault="the bundle answers differently from its checkpoint",
        advice="Raise `tolerance` only if the task's accuracy holds",
    )
    return Parity(
        num_prompts=num_prompts,
        measure=measure,
        tolerance=tolerance.limit,
        **dataclasses.asdict(found),
    )
