"""A target: what a device allows a model to take, and which model is wanted there.

One file for `limbeck plan --target`. Left out: the designs that fit, which `designs` finds.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from limbeck.contracts.config import Config, NameOr
from limbeck.contracts.errors import Fault, RecipeError
from limbeck.contracts.fields import NonNegativeFloat, NonNegativeInt, PositiveInt
from limbeck.contracts.recipe import Recipe, load_settings
from limbeck.contracts.registry import MODELS
from limbeck.models.config import ModelConfig, MoeModel
from limbeck.models.decoder_sizes import DenseFamily
from limbeck.pipeline.check import explain
from limbeck.pipeline.entry import is_folder
from limbeck.sizing.file_formats import SizedRuntime

TARGET = "target"
ASSUMED_VOCAB = 32_768


class TargetDevice(Config):
    """The device."""

    bytes_per_second: NonNegativeFloat = 0.0
    """Bandwidth of its memory; 0: not stated, and no speed is computed."""
    threads: NonNegativeInt = 0
    """Cores that answer; 0: not stated. Formats of few bits take a core longer to unpack than its
    memory to read, by rates that were measured on one kind of core."""
    flops_per_second: NonNegativeFloat = 0.0
    """Peak of its matrix products, an addition and a multiplication each counted; 0: not stated,
    and the first token's time is not computed."""


class WantedModel(Config):
    """Which model is to be made for the device: one to start from, or a size of a family."""

    start: Annotated[str | ModelConfig, NameOr(MODELS, what="model")] = ""
    """A folder with a checkpoint, or a description as in a recipe; it may be pruned."""
    parameters: NonNegativeInt = 0
    """Of a fresh model, embeddings counted; 0: as many as fit."""
    family: DenseFamily = "qwen3"
    """Architecture of a fresh model."""
    tokenizer: str = ""
    """A folder with `tokenizer.json`: how many tokens, and what they take."""
    vocab: NonNegativeInt = 0
    """Tokens where there is no tokenizer yet; 0: the tokenizer's or the start's, or 32,768."""


class Target(Config):
    """Budgets, 0 for none; the device; the model."""

    disk_bytes: NonNegativeInt = 0
    """Most bytes of the bundle; of a GGUF bundle, of the one file."""
    memory_bytes: NonNegativeInt = 0
    """Most bytes while answering, the cache of the whole context counted."""
    tokens_per_second: NonNegativeFloat = 0.0
    """Least speed of an answer at the end of the context."""
    token_milliseconds: NonNegativeFloat = 0.0
    """The same as a time: most milliseconds a token."""
    first_token_milliseconds: NonNegativeFloat = 0.0
    """Most time until an answer to a prompt of `prompt_tokens` begins."""
    context_tokens: PositiveInt = 2048
    """Question and answer, all kept in the cache; less where the model knows fewer positions."""
    prompt_tokens: PositiveInt = 128
    """Of the question, all read before the first token of its answer."""
    machine: TargetDevice = TargetDevice()
    """How fast the device reads and computes; without it bytes alone are planned."""
    runtimes: Annotated[tuple[SizedRuntime, ...], Field(min_length=1)] = ("gguf", "onnx")
    """What may answer on the device; `transformers` is the checkpoint itself."""
    model: WantedModel = WantedModel()
    """What is to answer there; left out with a recipe, whose models are planned instead."""

    @property
    def least_tokens_per_second(self) -> float:
        """By whichever field states it; 0 for none."""
        if self.token_milliseconds:
            return 1000 / self.token_milliseconds
        return self.tokens_per_second


def load_target(path: Path, *, overrides: tuple[str, ...] = ()) -> Target:
    """The target in a file, with `target.field=value` applied.

    Raises:
        RecipeError: with every fault, its field and its line.
    """
    data, lines = load_settings(path, what=TARGET, overrides=overrides)
    source = Recipe(path.stem, path, {}, lines)  # for the lines of its faults
    try:
        target = Target.model_validate(data)
    except ValidationError as error:
        raise RecipeError(path, explain(source, (), error)) from None
    faults = [
        Fault(where, message, source.line(*where.split(".")))
        for where, message in _contradictions(target).items()
    ]
    if faults:
        raise RecipeError(path, faults)
    return target


def _contradictions(target: Target) -> Mapping[str, str]:
    """What no field alone shows, by the field to change."""
    return dict([*_check_budgets(target), *_check_model(target.model)])


def _check_budgets(target: Target) -> Iterator[tuple[str, str]]:
    budgets = {
        "disk_bytes": target.disk_bytes,
        "memory_bytes": target.memory_bytes,
        "tokens_per_second": target.tokens_per_second,
        "token_milliseconds": target.token_milliseconds,
        "first_token_milliseconds": target.first_token_milliseconds,
    }
    if not any(budgets.values()):
        yield "disk_bytes", f"no budget is stated; state one of {', '.join(budgets)}"
    if target.tokens_per_second and target.token_milliseconds:
        yield (
            "token_milliseconds",
            "tokens_per_second states the same as a rate; leave one of the two out",
        )
    if target.least_tokens_per_second and not target.machine.bytes_per_second:
        yield (
            "machine.bytes_per_second",
            "is 0, and a speed is asked for; state the bandwidth of the device's memory",
        )
    if target.first_token_milliseconds and not target.machine.flops_per_second:
        yield (
            "machine.flops_per_second",
            "is 0, and a time to the first token is asked for; state the device's arithmetic",
        )
    if target.prompt_tokens > target.context_tokens:
        yield (
            "prompt_tokens",
            f"is {target.prompt_tokens}, more than the context's {target.context_tokens}",
        )


def _check_model(model: WantedModel) -> Iterator[tuple[str, str]]:
    if isinstance(model.start, MoeModel):
        yield (
            "model.start",
            "is a mixture of experts, and a target sizes dense decoders; describe a dense one",
        )
    if isinstance(model.start, str) and model.start and not is_folder(model.start):
        yield "model.start", f"{model.start!r} is no folder; name one that holds a checkpoint"
    if model.start and model.parameters:
        yield "model.parameters", "a start has its own number of parameters; leave one of both out"
    if model.tokenizer and model.vocab:
        yield "model.vocab", "the tokenizer has its own number of tokens; leave one of both out"
    if isinstance(model.start, str) and model.start and model.vocab:
        yield "model.vocab", "the start has its own number of tokens; leave `vocab` out"
    if model.tokenizer and not is_folder(model.tokenizer):
        yield "model.tokenizer", f"{model.tokenizer!r} is no folder; name one with tokenizer.json"
