"""`bundle.json`: what a deployable folder says about itself.

Left out: the runtime's own files, which its writer and reader define.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError, UnknownNameError
from limbeck.contracts.registry import FORMATS

BUNDLE = "bundle.json"
Positive = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]


STORED_ONLY = ("float16", "int6")
"""Formats that runtimes store, and no model is trained or sized in."""


def _check_format(name: str) -> str:
    if name not in FORMATS and name not in STORED_ONLY:
        raise ValueError(str(UnknownNameError(name, known=FORMATS, what="format")))
    return name


FormatName = Annotated[str, AfterValidator(_check_format)]
"""A name of `limbeck list formats`; reading it imports no format, which needs torch."""


class Parity(Config):
    """How far a bundle's next-token predictions lie from its checkpoint's."""

    num_prompts: Positive
    num_positions: Positive
    """Predictions compared, over whole prompts and token by token with the cache."""
    max_logit_difference: Amount
    mean_logit_difference: Amount
    max_logit: Amount
    """Largest magnitude of a logit of the checkpoint: what the differences are relative to."""
    argmax_agreement_ratio: Annotated[float, Field(ge=0, le=1)]
    mean_kl: Amount
    """Mean of KL(checkpoint || bundle), in nats."""
    rounding_kl: Amount = 0.0
    """Mean of KL(unrounded || checkpoint): what rounding activations costs the checkpoint; 0 where
    the format rounds none."""
    copy_rounding_kl: Amount = 0.0
    """The same of the bundle."""
    num_answers: Annotated[int, Field(ge=0)] = 0
    """Questions of the corpus that both answered greedily; 0: none were asked."""
    equal_answers_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of those, answers whose texts are equal."""
    measure: str
    """The figure that was held against the tolerance."""
    tolerance: Amount


class Bundle(Config):
    """The content of `bundle.json`."""

    runtime: str
    format: FormatName
    """Of the weight matrices."""
    architecture: str
    """The checkpoint's `model_type`."""
    runtime_settings: Mapping[str, int | float | str] = Field(default_factory=dict)
    """What only the runtime interprets, such as the version of a graph's operators."""
    parameters: Positive
    active_parameters: Positive
    max_tokens: Positive
    """Longest sequence, prompt and answer together."""
    parity: Parity | Literal["not measured"] = "not measured"


def read_bundle(folder: Path) -> Bundle:
    """A bundle's description of itself.

    Raises:
        CheckpointError: there is none, or it is invalid.
    """
    path = folder / BUNDLE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {BUNDLE}; export the checkpoint again")
    try:
        return Bundle.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); export the checkpoint again") from None


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle's description."""
    write_atomically(folder / BUNDLE, bundle.model_dump_json(indent=2) + "\n")
